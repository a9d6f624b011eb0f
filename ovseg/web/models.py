"""The models that a visitor may choose from, each loaded once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ovseg.errors import UserError
from ovseg.runtime.predictor import Predictor as Exported

if TYPE_CHECKING:
    from ovseg.predictor import Predictor
    from ovseg.runtime import Predictor as ExportedPredictor

    AnyPredictor = Predictor | ExportedPredictor


@dataclass(frozen=True)
class OwnSettings:
    """What a model does where nothing else is asked for.

    Attributes:
        ensemble_weight: its ``CLIP_ENSEMBLE_WEIGHT``; None without CLIP ensemble.
        mask_threshold: its ``MASK_THR``.
        reject: its ``TEST.REJECT``.
    """

    ensemble_weight: float | None
    mask_threshold: float
    reject: float

    @property
    def slider_weight(self) -> float:
        """Where the slider of the weight stands, which has to stand somewhere."""
        return 0.0 if self.ensemble_weight is None else self.ensemble_weight


class Models:
    """Models by name. They are loaded when they are first asked for, and stay."""

    def __init__(self, loaders: Mapping[str, Callable[[], AnyPredictor]]) -> None:
        """
        Args:
            loaders: what loads each of them; the first is the one to begin with.
        """
        self._loaders = dict(loaders)
        self._loaded: dict[str, AnyPredictor] = {}
        self._loading = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Of all models, the first one first."""
        return list(self._loaders)

    def get(self, name: str) -> AnyPredictor:
        """A model, loaded if it is not yet.

        Raises:
            UserError: there is none of that name, or it cannot be loaded.
        """
        if name not in self._loaders:
            raise UserError(f"model {name!r}: there is none; choose {', '.join(self._loaders)}")
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = self._loaders[name]()
            return self._loaded[name]

    def own_settings(self, name: str) -> OwnSettings:
        """The settings of a model's config or export; loads it. Errors as :meth:`get`."""
        predictor = self.get(name)
        if isinstance(predictor, Exported):
            own = predictor.folder.settings
            weight = own.ensemble_weight if own.clip_ensemble else None
            return OwnSettings(weight, own.mask_threshold, own.reject)
        cfg = predictor.cfg
        adapter = cfg.MODEL.CLIP_ADAPTER
        weight = adapter.CLIP_ENSEMBLE_WEIGHT if adapter.CLIP_ENSEMBLE else None
        return OwnSettings(weight, adapter.MASK_THR, cfg.TEST.REJECT)
