"""Ground-truth regions: cut out as the segmentation network cuts its proposals, and counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from open_clip_training.common.images import MEAN
from ovseg.engine.true_regions import filled_boxes, region_masks
from ovseg.modeling.crops import cut_crops
from ovseg.structures import Crops

#: regions of fewer pixels are too small to be recognised
MIN_PIXELS = 64


def region_sizes(ids: np.ndarray) -> dict[int, int]:
    """The pixels of every region of a map ``(H, W)``, by its id, in the order of ids."""
    values, pixels = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), pixels.tolist(), strict=True))


def cut_regions(
    image: np.ndarray,
    ids: np.ndarray,
    chosen: Sequence[int],
    size: tuple[int, int],
    *,
    fill_background: bool = True,
    mean: Sequence[float] = MEAN,
) -> Crops:
    """The crops of regions.

    Args:
        image: uint8 ``(H, W, 3)``, RGB.
        ids: integer ``(H, W)``, the region of every pixel.
        chosen: ids of regions to cut, each with a pixel.
        size: height and width of CLIP's input in pixels.
        fill_background: with CLIP's mean colour, as the segmentation network does; False: all that
            is in a region's box stays, and its crop's mask is the whole box.
        mean: of CLIP's pixels, RGB, for values in 0..1.
    """
    masks = region_masks(ids, chosen)
    if not fill_background:
        masks = filled_boxes(masks)
    return cut_crops(
        torch.from_numpy(image).permute(2, 0, 1),
        masks.float(),
        size=size,
        threshold=0.5,
        fill=[255 * value for value in mean],
    )


def percent(share: Tensor | float, digits: int) -> float:
    """A share as a rounded percentage; NaN stays NaN."""
    return round(100 * float(share), digits)
