"""Regions as CLIP sees them, one crop each: masks -> crops -> CLIP (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ovseg.structures import Crops, Regions

from .clip import ClipAdapter
from .crops import cut_crops
from .memory import rows_at


class CropEncoder:
    """Cuts regions out of an image and shows each of them to CLIP."""

    def __init__(
        self, clip_adapter: ClipAdapter, *, fill: str, expand_ratio: float, matting: bool
    ) -> None:
        """
        Args:
            clip_adapter: the CLIP of the model.
            fill: background of crops: "mean" (CLIP's mean colour) or "zero" (black).
            expand_ratio, matting: see :func:`cut_crops`.
        """
        self.clip_adapter = clip_adapter
        self.fill = fill
        self.expand_ratio = expand_ratio
        self.matting = matting

    @property
    def fill_colour(self) -> list[float]:
        """The background's colour, RGB, 0..255."""
        if self.fill == "zero":
            return [0.0, 0.0, 0.0]
        colour: list[float] = self.clip_adapter.pixel_mean.flatten().tolist()
        return colour

    def __call__(
        self, several: Sequence[Regions], places: Sequence[Tensor], threshold: float
    ) -> list[Tensor]:
        """CLIP's features of the crops of several images, which it sees together.

        Crops are cut when CLIP takes them, so that no more of them exist than it takes at once.

        Args:
            several: the regions of each image.
            places: int64 (V,), of those of its masks that are shown, all of them valid.
            threshold: a pixel belongs to a region when its mask's probability exceeds this.

        Returns:
            For each image float32 (V, D), of the regions that are shown.
        """
        counts = [len(each) for each in places]

        def cut(part: slice) -> Crops:
            first, parts = 0, []
            for regions, shown in zip(several, places, strict=True):
                inside = shown[max(part.start - first, 0) : max(part.stop - first, 0)]
                first += len(shown)
                if len(inside):
                    parts.append(self._crops(regions, inside, threshold))
            return _together(parts)

        return list(self.clip_adapter.encode_crops(sum(counts), cut).split(counts))

    def _crops(self, regions: Regions, places: Tensor, threshold: float) -> Crops:
        return cut_crops(
            regions.image,
            rows_at(regions.masks, places),
            size=self.clip_adapter.input_size,
            threshold=threshold,
            fill=self.fill_colour,
            expand_ratio=self.expand_ratio,
            matting=self.matting,
        )


def _together(several: Sequence[Crops]) -> Crops:
    return Crops(
        torch.cat([each.images for each in several]),
        torch.cat([each.masks for each in several]),
        torch.cat([each.valid for each in several]),
    )
