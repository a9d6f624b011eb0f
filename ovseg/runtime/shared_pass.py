"""What CLIP sees in a shared pass; :mod:`ovseg.modeling.clip.shared_pass` in NumPy."""

from __future__ import annotations

import numpy as np

from ovseg.runtime.resize import bicubic_smoothed


def shared_inputs(
    image: np.ndarray, masks: np.ndarray, short_side: int, patch: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The whole image in whole patches, and which of them each mask covers.

    Args:
        image: RGB (3, H, W), 0..255.
        masks: bool (Q, H, W).
        short_side: of the image that CLIP sees, in pixels, rounded to whole patches.
        patch: the side of a patch in pixels.

    Returns:
        The image, float32 (3, rows * patch, columns * patch), RGB, 0..255; float32
        (V, rows, columns), 1 where a mask has a pixel, of the V masks that have one; and which of
        the Q these are, bool (Q,).
    """
    height, width = image.shape[1:]
    scale = short_side / min(height, width) / patch
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    resized = bicubic_smoothed(image.astype(np.float32), (rows * patch, columns * patch))
    valid = np.asarray(masks.any(axis=(1, 2)))
    covered = _any_within(_any_within(masks[valid], rows, axis=1), columns, axis=2)
    return resized, covered.astype(np.float32), valid


def _any_within(masks: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Whether there is any pixel in each of ``count`` parts of an axis; parts share the pixels
    that they cut."""
    length = masks.shape[axis]
    parts = [
        masks.take(range(place * length // count, -(-(place + 1) * length // count)), axis)
        for place in range(count)
    ]
    return np.stack([part.any(axis=axis) for part in parts], axis=axis)
