"""Resizing in NumPy: as Pillow for images, as ``torch.nn.functional.interpolate`` for arrays."""

from __future__ import annotations

import numpy as np
from PIL import Image

# the cubic kernel's parameter in PyTorch, without and with smoothing
_CUBIC, _SMOOTH_CUBIC = -0.75, -0.5


def resize_short_side(image: np.ndarray, short: int, longest: int) -> np.ndarray:
    """Resize bilinearly, keeping the aspect, as :func:`ovseg.data.mapper.resize_short_side`.

    Args:
        image: uint8 (H, W, 3).
        short: new length of the shorter side in pixels; 0: the image stays as it is.
        longest: most pixels of the longer side; where it would be exceeded, both sides shrink.
    """
    if not short:
        return image
    height, width = image.shape[:2]
    scale = short / min(height, width)
    sides = (short, scale * width) if height < width else (scale * height, short)
    if max(sides) > longest:
        shrink = longest / max(sides)
        sides = (sides[0] * shrink, sides[1] * shrink)
    new_height, new_width = (max(int(side + 0.5), 1) for side in sides)
    if (new_height, new_width) == (height, width):
        return image
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def bilinear(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Float arrays (N, h, w) at another size, between pixel centres."""
    height, width = images.shape[-2:]
    return _along(
        _along(images, 2, *_linear_taps(width, size[1])), 1, *_linear_taps(height, size[0])
    )


def bilinear_rows(images: np.ndarray, height: int, first: int, last: int) -> np.ndarray:
    """Rows ``first`` to ``last`` (exclusive) of :func:`bilinear` to ``height`` rows; the columns
    stay."""
    near, weights = _linear_taps(images.shape[1], height)
    return _along(images, 1, near[first:last], weights[first:last])


def bilinear_columns(images: np.ndarray, width: int) -> np.ndarray:
    """The columns of :func:`bilinear` alone."""
    return _along(images, 2, *_linear_taps(images.shape[2], width))


def bicubic(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Float arrays (N, h, w) at another size by cubic splines, without smoothing before."""
    height, width = images.shape[-2:]
    return _along(_along(images, 2, *_cubic_taps(width, size[1])), 1, *_cubic_taps(height, size[0]))


def bicubic_smoothed(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Float arrays (N, h, w) at another size by cubic splines that widen where it shrinks, as
    ``antialias=True``."""
    rows, columns = (
        _smoothing_weights(old, new) for old, new in zip(images.shape[-2:], size, strict=True)
    )
    return rows @ images @ columns.T


def nearest(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Arrays (N, h, w) at another size, each pixel that of its upper left corner."""

    def places(length: int, new: int) -> np.ndarray:
        scale = np.float32(length) / np.float32(new)
        index = np.floor(np.arange(new, dtype=np.float32) * scale).astype(np.int64)
        return np.minimum(index, length - 1)

    rows, columns = (places(old, new) for old, new in zip(images.shape[-2:], size, strict=True))
    return images[:, rows[:, None], columns]


def _along(images: np.ndarray, axis: int, taps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums along an axis; ``taps`` and ``weights``: (new length, T)."""
    if images.shape[axis] == len(taps) and weights.shape[1] == 2 and not weights[:, 1].any():
        return images  # the size stays
    shape = [1] * images.ndim
    shape[axis] = -1
    result = images.take(taps[:, 0], axis) * weights[:, 0].reshape(shape)
    for tap in range(1, taps.shape[1]):
        result += images.take(taps[:, tap], axis) * weights[:, tap].reshape(shape)
    return result


def _linear_taps(length: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    position = np.maximum(_centres(length, new), 0)
    near = np.minimum(position.astype(np.int64), length - 1)
    far = np.minimum(near + 1, length - 1)
    share = position - near
    return np.stack([near, far], 1), np.stack([1 - share, share], 1).astype(np.float32)


def _cubic_taps(length: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    position = _centres(length, new)
    before = np.floor(position)
    t = position - before
    near, far = _cubic_near, _cubic_far
    weights = np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)], 1)
    taps = before.astype(np.int64)[:, None] + np.arange(-1, 3)
    return taps.clip(0, length - 1), weights.astype(np.float32)


def _smoothing_weights(length: int, new: int) -> np.ndarray:
    """float32 (new, length): what each old pixel counts for each new one."""
    scale = length / new
    centres = (np.arange(new) + 0.5) * scale
    away = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1)
    near = _cubic_near(away, _SMOOTH_CUBIC)
    far = _cubic_far(away, _SMOOTH_CUBIC)
    weights = np.where(away < 1, near, np.where(away < 2, far, 0))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _centres(length: int, new: int) -> np.ndarray:
    """Where the centres of new pixels lie among the old ones, float32."""
    scale = np.float32(length) / np.float32(new)
    return (np.arange(new, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)


def _cubic_near(x: np.ndarray, a: float = _CUBIC) -> np.ndarray:
    """The kernel within one pixel of the centre."""
    return ((a + 2) * x - (a + 3)) * x * x + 1


def _cubic_far(x: np.ndarray, a: float = _CUBIC) -> np.ndarray:
    """The kernel between one and two pixels from the centre."""
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
