"""A prediction as an image where OpenCV is not installed, as beside exported models.

Plainer than :mod:`ovseg.visualizer`: outlines are steps of pixels, words are in the legend alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from ovseg.colours import color_map
from ovseg.fonts import font_size
from ovseg.legend import beside, legend_rows, steady_rows
from ovseg.utils.label_maps import count_labels

#: an image's longer side in the overlay, at least; smaller images are enlarged
MIN_OVERLAY_SIDE = 640


def drawing() -> Callable[..., np.ndarray]:
    """What draws overlays: that of :mod:`ovseg.visualizer`, or where OpenCV is missing the one
    below."""
    try:
        from ovseg import visualizer
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        return draw_overlay
    return visualizer.draw_overlay


def draw_overlay(
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    opacity: float,
    colours: np.ndarray,
    *,
    steady: bool = False,
) -> np.ndarray:
    """Arguments and result as of :func:`ovseg.visualizer.draw_overlay`."""
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity} must be in 0..1")
    shares = count_labels(labels, len(names)) / max(labels.size, 1)
    image, labels = _enlarged(image, labels)
    tinted = (1 - opacity) * image + opacity * color_map(labels, colours)
    drawn = np.where((labels >= 0)[..., None], tinted, image)
    drawn[_outlines(labels)] = 255
    panel = Image.fromarray(drawn.round().astype(np.uint8))
    rows = steady_rows(names, colours) if steady else legend_rows(names, shares, colours)
    return np.asarray(beside(panel, rows, font_size(image)))


def _enlarged(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = labels.shape
    factor = MIN_OVERLAY_SIDE / max(height, width)
    if factor <= 1:
        return image, labels
    size = max(1, round(width * factor)), max(1, round(height * factor))
    larger = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(size[::-1], labels.shape, strict=True)
    )
    return np.asarray(larger), labels[rows[:, None], columns]


def _outlines(labels: np.ndarray) -> np.ndarray:
    """bool (H, W): pixels of a class whose right or lower neighbour is of another."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge
