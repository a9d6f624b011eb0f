"""From masks to what CLIP sees: boxes, filled crops (paper section 3.2). Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.structures import Crops


def mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes of masks.

    Args:
        masks: bool (N, H, W).

    Returns:
        int64 (N, 4): left, top, right, bottom in pixels, right and bottom exclusive; all zero
        for a mask without a pixel.
    """

    def extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
        length = occupied.shape[1]
        index = torch.arange(length, device=occupied.device)
        first = torch.where(occupied, index, length).amin(dim=1)
        last = torch.where(occupied, index + 1, 0).amax(dim=1)
        return torch.minimum(first, last), last

    left, right = extent(masks.any(dim=1))
    top, bottom = extent(masks.any(dim=2))
    return torch.stack((left, top, right, bottom), dim=1)


def expand_box(
    box: Sequence[int], ratio: float, height: int, width: int
) -> tuple[int, int, int, int]:
    """Grow a box about its centre, cut its edges to whole pixels and to the image.

    Args:
        box: left, top, right, bottom in pixels, right and bottom exclusive.
        ratio: factor on both sides; 1 leaves the box as it is.
        height, width: size of the image in pixels.

    Returns:
        left, top, right, bottom of a box that holds at least one pixel.
    """
    left, top, right, bottom = box
    cx, cy = (left + right) / 2, (top + bottom) / 2
    half_w, half_h = (right - left) * ratio / 2, (bottom - top) * ratio / 2
    left, top = max(int(cx - half_w), 0), max(int(cy - half_h), 0)
    right, bottom = min(int(cx + half_w), width), min(int(cy + half_h), height)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def cut_crops(
    image: Tensor,
    masks: Tensor,
    *,
    size: tuple[int, int],
    threshold: float,
    fill: Sequence[float],
    expand_ratio: float = 1.0,
    matting: bool = False,
) -> Crops:
    """Cut out what each mask shows and scale it to CLIP's input, aspect not kept.

    Args:
        image: RGB (3, H, W), 0..255.
        masks: probabilities (Q, H, W), 0..1.
        size: height and width of CLIP's input in pixels.
        threshold: a pixel belongs to the mask when its probability exceeds this; a mask without
            such a pixel is not valid and has no crop.
        fill: colour of the background, RGB 0..255.
        expand_ratio: factor on the box's sides.
        matting: weight the image by the probability instead of cutting at the threshold; pixels
            of probability 0 are filled.

    Returns:
        The crops of the valid masks; none valid is a normal case.
    """
    binary = masks > threshold
    valid = binary.flatten(1).any(dim=1)
    binary = binary[valid]
    weights = (masks[valid] if matting else binary).to(masks.dtype)
    image = image.to(masks.dtype)
    colour = image.new_tensor(fill).view(3, 1, 1)
    height, width = image.shape[-2:]
    images, crop_masks = [], []
    for box, weight in zip(mask_boxes(binary).tolist(), weights, strict=True):
        left, top, right, bottom = expand_box(box, expand_ratio, height, width)
        weight = weight[None, top:bottom, left:right]
        crop = torch.where(weight > 0, image[:, top:bottom, left:right] * weight, colour)
        images.append(F.interpolate(crop[None], size=size, mode="bicubic"))
        crop_masks.append(F.interpolate(weight[None], size=size, mode="nearest"))
    if not images:
        none = image.new_zeros((0, 1, *size))
        return Crops(none.expand(-1, 3, -1, -1), none, valid)
    return Crops(torch.cat(images), torch.cat(crop_masks), valid)
