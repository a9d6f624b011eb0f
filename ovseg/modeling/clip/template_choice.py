"""The best templates of each word, in place of all of them.

FLOSS ("Free Lunch in Open-vocabulary Semantic Segmentation", ICCV 2025) finds that every class has
templates of its own that beat the mean of all, and that they can be told without ground truth, by
the entropy of what is labelled so. :mod:`ovseg.engine.template_choice` chooses them over proposals.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg.errors import UserError
from ovseg.utils.digests import digest
from ovseg.utils.io import read_json

_KEY = "MODEL.CLIP_ADAPTER.BEST_TEMPLATES"


@dataclass(frozen=True)
class TemplateChoice:
    """Which templates a word's features are the mean of.

    Attributes:
        templates: all M of them.
        best: of some words the places of their best templates, at least one each; other words have
            all.
    """

    templates: tuple[str, ...]
    best: Mapping[str, tuple[int, ...]]

    @classmethod
    def read(cls, path: str | os.PathLike[str], templates: Sequence[str]) -> TemplateChoice:
        """The choice in a file of ``ovseg templates``.

        Args:
            path: of the file.
            templates: of the model, which it must have been made with.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        if not Path(path).is_file():
            raise UserError(f"{_KEY} {str(path)!r}: no such file; ovseg templates writes one")
        content = read_json(path, dict, f"make it anew for {_KEY}")
        best = content.get("best")
        places = range(len(templates))
        if not isinstance(best, dict) or not all(
            isinstance(chosen, list) and chosen and all(place in places for place in chosen)
            for chosen in best.values()
        ):
            raise UserError(f"{_KEY} {str(path)!r} is no file of ovseg templates; make it anew")
        if content.get("templates") != list(templates):
            raise UserError(
                f"{_KEY} {str(path)!r} is of other templates than those of "
                "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES; make it anew, with them"
            )
        return cls(tuple(templates), {word: tuple(chosen) for word, chosen in best.items()})

    def mix(self, words: Sequence[str], features: Tensor) -> Tensor:
        """The mean of each word's best templates, (W, D), of unit length.

        Args:
            words: W of them.
            features: unit features (W, M, D) of the words in each template.
        """
        everything = range(len(self.templates))
        means = [
            texts[list(self.best.get(word, everything))].mean(dim=0)
            for word, texts in zip(words, features, strict=True)
        ]
        return F.normalize(torch.stack(means), dim=-1)

    @property
    def digest(self) -> str:
        """Tells apart choices."""
        return digest([repr(sorted(self.best.items()))])
