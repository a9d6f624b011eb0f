"""A learned linear map over the templates' cosines in place of their mean.

MaskCLIP++ ("High-Quality Mask Tuning Matters for Open-Vocabulary Segmentation", 2024) aligns CLIP's
scores of masks with its classes so, and what it learned of seen classes holds for new ones, since
the map knows no class. Here CLIP itself stays frozen: ``train.py --train template-map``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ovseg.errors import UserError
from ovseg.utils.checkpoint_files import load_entries
from ovseg.utils.digests import digest

#: the entries of a file
ENTRY, TEMPLATES = "template_weights", "templates"
_KEY = "MODEL.CLIP_ADAPTER.TEMPLATE_MAP"


@dataclass(frozen=True)
class TemplateMap:
    """The score of a class is the weighted sum of an image's cosines with its M texts.

    Attributes:
        weights: float (M,), the same for all classes.
    """

    weights: Tensor

    @classmethod
    def read(cls, path: str | os.PathLike[str], templates: Sequence[str]) -> TemplateMap:
        """The map in a file of ``train.py --train template-map``.

        Args:
            path: of the file.
            templates: of the model, which it must have been learned with.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        if not Path(path).is_file():
            raise UserError(
                f"{_KEY} {str(path)!r}: no such file; open_clip_training/train.py --train "
                "template-map writes one"
            )
        content = load_entries(Path(path), _KEY)
        weights = content.get(ENTRY)
        if not isinstance(weights, Tensor) or weights.ndim != 1 or not weights.isfinite().all():
            raise UserError(f"{_KEY} {str(path)!r} holds no map of templates; give another file")
        if list(content.get(TEMPLATES, ())) != list(templates) or len(weights) != len(templates):
            raise UserError(
                f"{_KEY} {str(path)!r} is of other templates than those of "
                "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES; learn it anew, with them"
            )
        return cls(weights.float())

    def mix(self, words: Sequence[str], features: Tensor) -> Tensor:
        """What a word's score is the dot product with, (W, D), of any length.

        Args:
            words: W of them; they make no difference.
            features: unit features (W, M, D) of the words in each template.
        """
        return torch.einsum("wmd,m->wd", features, self.weights.to(features))

    @property
    def digest(self) -> str:
        """Tells apart maps."""
        return digest([self.weights.numpy().data])
