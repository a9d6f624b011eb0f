"""Regions as CLIP sees them, one crop each: masks -> crops -> CLIP (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ovseg.structures import Crops, Regions

from .clip import ClipAdapter
from .crops import cut_crops


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

    def __call__(self, several: Sequence[Regions], threshold: float) -> list[Tensor]:
        """CLIP's features of the crops of several images, which it sees together.

        Args:
            several: the regions of each image.
            threshold: a pixel belongs to a region when its mask's probability exceeds this; those
                without such a pixel are not valid.

        Returns:
            For each image float32 (V, D), of its V valid regions.
        """
        if not several:
            return []
        crops = [self._crops(regions, threshold) for regions in several]
        together = Crops(
            torch.cat([each.images for each in crops]),
            torch.cat([each.masks for each in crops]),
            torch.cat([each.valid for each in crops]),
        )
        features = self.clip_adapter.encode_crops(together)
        return list(features.split([len(each.images) for each in crops]))

    def _crops(self, regions: Regions, threshold: float) -> Crops:
        return cut_crops(
            regions.image,
            regions.masks,
            size=self.clip_adapter.input_size,
            threshold=threshold,
            fill=self.fill_colour,
            expand_ratio=self.expand_ratio,
            matting=self.matting,
        )
