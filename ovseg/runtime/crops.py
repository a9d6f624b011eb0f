"""From masks to what CLIP sees (paper section 3.2); :mod:`ovseg.modeling.crops` in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovseg.runtime.resize import bicubic, nearest


@dataclass
class Crops:
    """The regions of one image as CLIP sees them.

    Attributes:
        images: float32 (V, 3, S, S), RGB, 0..255, background filled; V masks are valid.
        masks: float32 (V, 1, S, S); above 0 on the region.
        valid: bool (Q,); which of the image's Q masks have a crop, in order.
    """

    images: np.ndarray
    masks: np.ndarray
    valid: np.ndarray


def cut_crops(
    image: np.ndarray,
    masks: np.ndarray,
    *,
    size: tuple[int, int],
    threshold: float,
    fill: Sequence[float],
    expand_ratio: float = 1.0,
    matting: bool = False,
) -> Crops:
    """Cut out what each mask shows and scale it to CLIP's input.

    Args:
        image: (3, H, W), 0..255.
        masks: float32 (Q, H, W), 0..1.
        size, threshold, fill, expand_ratio, matting: see :func:`ovseg.modeling.crops.cut_crops`.

    Returns:
        The crops of the valid masks; none valid is a normal case.
    """
    image = image.astype(np.float32)
    colour = np.array(fill, np.float32).reshape(3, 1, 1)
    height, width = image.shape[-2:]
    valid = np.zeros(len(masks), bool)
    images, crop_masks = [], []
    for place, mask in enumerate(masks):
        binary = mask > np.float32(threshold)
        rows, columns = np.flatnonzero(binary.any(axis=1)), np.flatnonzero(binary.any(axis=0))
        if not len(rows):
            continue
        valid[place] = True
        tight = [int(edge) for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
        left, top, right, bottom = _expanded(tight, expand_ratio, height, width)
        window = slice(top, bottom), slice(left, right)
        weight = (mask if matting else binary)[window].astype(np.float32)
        crop = np.where(weight > 0, image[(slice(None), *window)] * weight, colour)
        images.append(bicubic(crop, size))
        crop_masks.append(nearest(weight[None], size))
    if not images:
        none = np.zeros((0, 1, *size), np.float32)
        return Crops(none.repeat(3, axis=1), none, valid)
    return Crops(np.stack(images), np.stack(crop_masks), valid)


def _expanded(
    box: Sequence[int], ratio: float, height: int, width: int
) -> tuple[int, int, int, int]:
    """Grow a box about its centre, cut its edges to whole pixels and to the image."""
    left, top, right, bottom = box
    cx, cy = (left + right) / 2, (top + bottom) / 2
    half_w, half_h = (right - left) * ratio / 2, (bottom - top) * ratio / 2
    left, top = max(int(cx - half_w), 0), max(int(cy - half_h), 0)
    right, bottom = min(int(cx + half_w), width), min(int(cy + half_h), height)
    return left, top, max(right, left + 1), max(bottom, top + 1)
