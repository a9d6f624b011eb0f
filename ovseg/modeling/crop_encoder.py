"""Regions as CLIP sees them, one crop each: masks -> crops -> CLIP (paper section 3.2)."""

from __future__ import annotations

from torch import Tensor

from ovseg.structures import Regions

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

    def __call__(self, regions: Regions, threshold: float) -> Tensor:
        """CLIP's features float32 (V, D) of the crops of an image's V valid regions.

        Args:
            regions: of one image.
            threshold: a pixel belongs to a region when its mask's probability exceeds this; those
                without such a pixel are not valid.
        """
        crops = cut_crops(
            regions.image,
            regions.masks,
            size=self.clip_adapter.input_size,
            threshold=threshold,
            fill=self.fill_colour,
            expand_ratio=self.expand_ratio,
            matting=self.matting,
        )
        return self.clip_adapter.encode_crops(crops).float()
