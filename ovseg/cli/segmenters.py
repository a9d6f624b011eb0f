"""What segments the images of a command line: a model, or an exported one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ovseg.cli import require_pytorch
from ovseg.cli.model_choice import (
    SEGMENTS,
    about_model,
    chosen_config,
    chosen_things,
    chosen_words,
    config_at_once,
    given_words,
)
from ovseg.errors import UserError
from ovseg.utils.digests import digest

if TYPE_CHECKING:
    import numpy as np
    from detectron2.config import CfgNode

    from ovseg.prediction import Prediction
    from ovseg.runtime import Predictor as ExportedPredictor
    from ovseg.segments import InstancePrediction, PanopticPrediction
    from ovseg.vocabulary import Vocabulary

    Found = tuple[Prediction, PanopticPrediction | None, InstancePrediction | None]


class Segmenter(Protocol):
    """Takes images to what is found in them.

    Attributes:
        vocabulary: the words to look for.
        about: what the JSON says of the model; there after :meth:`prepare`.
    """

    vocabulary: Vocabulary
    about: Mapping[str, object]

    def prepare(self, inputs: Sequence[Path]) -> None:
        """Read what the model's settings are, and check that they suit the images."""

    def load(self) -> None:
        """Load the model; before any image is read."""

    def encode(self, paths: Sequence[Path], images: Sequence[np.ndarray]) -> list[Any]:
        """Encode images together."""

    def segment(self, path: Path, encoded: Any) -> Found:
        """Segment an encoded image."""


class ModelSegmenter:
    """A model by its name or config, on PyTorch; see :class:`Segmenter`."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Check what can be checked of ``args`` at once.

        Raises:
            UserError: see :func:`chosen_words` and :func:`chosen_things`; or things are given, and
                no segments are asked for.
        """
        require_pytorch("ovseg segment without --runtime")
        self.vocabulary = chosen_words(args)
        self.about: Mapping[str, object] = {}
        self._things = chosen_things(args, self.vocabulary)
        self._args = args
        self._check_things(config_at_once(args))

    def prepare(self, inputs: Sequence[Path]) -> None:
        self.cfg = chosen_config(self._args, option_opts(self._args))
        self._check_things(self.cfg)
        from ovseg.data.proposal_files import check_image_names, check_proposals

        if self.cfg.TEST.LOAD_PROPOSALS:
            check_proposals(Path(self.cfg.TEST.LOAD_PROPOSALS), inputs)
        if self.cfg.TEST.SAVE_PROPOSALS:
            check_image_names(inputs)
        from ovseg.engine.resumable import model_settings

        anywhere = self.cfg.clone()
        anywhere.defrost()
        anywhere.MODEL.DEVICE = ""  # what it runs on makes no difference
        shown = [self.vocabulary.words_of_class, sorted(self._things or ()), self._args.palette]
        self.about = {
            **about_model(self.cfg, self._args.config_file),
            "settings": _short_digest([model_settings(anywhere), shown]),
        }

    def _check_things(self, cfg: CfgNode | None) -> None:
        if self._args.thing_classes is None or cfg is None:
            return
        asked = cfg.MODEL.MASK_FORMER.TEST
        if not (asked.PANOPTIC_ON or asked.INSTANCE_ON):
            raise UserError(
                f"--thing-classes has no effect without segments; add --opts {SEGMENTS[0]} True "
                f"(or {SEGMENTS[1]} True)"
            )

    def load(self) -> None:
        from ovseg.predictor import Predictor

        self._predictor = Predictor(self.cfg)

    def encode(self, paths: Sequence[Path], images: Sequence[np.ndarray]) -> list[Any]:
        from ovseg.data.proposal_files import find_proposals, read_proposals

        folder, width = self.cfg.TEST.LOAD_PROPOSALS, self.cfg.MODEL.SEM_SEG_HEAD.EMBEDDING_DIM
        proposals = None
        if folder:
            proposals = [
                read_proposals(find_proposals(Path(folder), path), image.shape[:2], width)
                for path, image in zip(paths, images, strict=True)
            ]
        return list(self._predictor.encode_batch(images, proposals))

    def segment(self, path: Path, encoded: Any) -> Found:
        from ovseg.data.proposal_files import write_proposals

        prediction = encoded.segment(self.vocabulary)
        asked, words = self.cfg.MODEL.MASK_FORMER.TEST, self.vocabulary
        panoptic = encoded.panoptic(words, self._things) if asked.PANOPTIC_ON else None
        instances = encoded.instances(words, self._things) if asked.INSTANCE_ON else None
        if self.cfg.TEST.SAVE_PROPOSALS:
            file = Path(self.cfg.TEST.SAVE_PROPOSALS, f"{path.stem}.npz")
            write_proposals(file, encoded.regions)
        return prediction, panoptic, instances


class ExportedSegmenter:
    """A folder of ``ovseg export``, without PyTorch; see :class:`Segmenter`."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Read the folder's manifest.

        Raises:
            UserError: options that need PyTorch, or a folder or words that cannot be used.
        """
        for option in (
            "model", "config_file", "speed", "thing_classes", "load_proposals", "save_proposals",
            "opts",
        ):  # fmt: skip
            if getattr(args, option):
                raise UserError(
                    f"--{option.replace('_', '-')} and --runtime are both given; an exported model "
                    "has its settings in the folder: leave one of them out"
                )
        from ovseg.runtime import Predictor

        self._predictor: ExportedPredictor = Predictor(args.runtime)
        self._reject = args.reject
        self.vocabulary = given_words(args) or self._predictor.vocabulary()
        settings = self._predictor.folder.settings
        self.about: Mapping[str, object] = {
            "runtime": str(args.runtime),
            **self._predictor.folder.manifest["model"],
            "precision": self._predictor.folder.manifest["precision"],
            "ensemble": settings.clip_ensemble,
            "ensemble_weight": settings.ensemble_weight,
            "reject": settings.reject if args.reject is None else args.reject,
            "settings": _short_digest(
                [self._predictor.folder.manifest, self.vocabulary.words_of_class, args.palette]
            ),
        }

    def prepare(self, inputs: Sequence[Path]) -> None:
        """Everything was read with the folder."""

    def load(self) -> None:
        """The graphs are loaded when they are first needed."""

    def encode(self, paths: Sequence[Path], images: Sequence[np.ndarray]) -> list[Any]:
        return list(self._predictor.encode_batch(images))

    def segment(self, path: Path, encoded: Any) -> Found:
        return encoded.segment(self.vocabulary, reject=self._reject), None, None


def _short_digest(settings: Any) -> str:
    """Tells apart what results were made with."""
    return digest([json.dumps(settings, sort_keys=True)])[:16]


def option_opts(args: argparse.Namespace) -> list[str]:
    """The config overrides that --load-proposals, --save-proposals and --reject stand for."""
    pairs = (
        ("TEST.LOAD_PROPOSALS", args.load_proposals),
        ("TEST.SAVE_PROPOSALS", args.save_proposals),
        ("TEST.REJECT", args.reject),
    )
    given = [(key, str(value)) for key, value in pairs if value not in {None, ""}]
    return [part for pair in given for part in pair]
