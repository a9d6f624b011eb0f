"""A prediction as an image: coloured regions with outlines, words in them, and a legend beside.

Images are RGB, uint8 (H, W, 3), 0..255; label maps are integers (H, W), -1 where there is no
class.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from ovseg.colours import color_map, palette
from ovseg.fonts import font_size
from ovseg.legend import beside, legend_rows, steady_rows
from ovseg.lettering import draw_words, place_words
from ovseg.utils.label_maps import count_labels

#: an image's longer side in the overlay, at least; smaller images are enlarged
MIN_OVERLAY_SIDE = 640
# mean grey value from which on outlines are dark
_LIGHT = 165


def draw_overlay(
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    opacity: float = 0.5,
    colours: np.ndarray | None = None,
    *,
    steady: bool = False,
) -> np.ndarray:
    """The image with its regions, their outlines and names, and a legend on its right.

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: integer (H, W), -1 where there is no class.
        names: of the classes.
        opacity: of the regions' colours, 0..1.
        colours: of the classes, uint8 (C, 3), RGB; None: of :func:`palette`.
        steady: for the frames of a video: the legend, which has all classes or is left out for many
            of them, is the same for all label maps, and so is the overlay's size.

    Returns:
        uint8 (H', W', 3), RGB. Images with sides below ``MIN_OVERLAY_SIDE`` are enlarged.

    Raises:
        ValueError: labels and image differ in size, or an opacity outside 0..1.
    """
    if labels.shape != image.shape[:2]:
        raise ValueError(f"labels {labels.shape} do not fit the image {image.shape[:2]}")
    shares = count_labels(labels, len(names)) / max(labels.size, 1)
    colours = palette(len(names)) if colours is None else colours
    image, labels = _enlarge(image, labels)
    panel = Image.fromarray(draw_regions(image, labels, colours, opacity))
    size = font_size(image)
    draw_words(panel, place_words(labels, names, size))
    rows = steady_rows(names, colours) if steady else legend_rows(names, shares, colours)
    return np.asarray(beside(panel, rows, size))


def draw_regions(
    image: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float = 0.5
) -> np.ndarray:
    """Tint the regions of ``labels`` and outline them; pixels of no class keep their colour.

    Shapes as for :func:`color_map`, opacity as for :func:`draw_overlay`; returns uint8 (H, W, 3),
    RGB.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity} must be in 0..1")
    result = color_map(labels, colours)
    cv2.addWeighted(image, 1 - opacity, result, opacity, 0, dst=result)
    np.copyto(result, image, where=(labels < 0)[..., None])
    width = max(1, round(max(labels.shape) / 450))
    # the classes' colours towards white, or in a light image towards black
    ground = 0 if cv2.mean(cv2.cvtColor(result, cv2.COLOR_RGB2GRAY))[0] > _LIGHT else 255
    # with the border continued outwards no outline runs along the edge of the image
    edge = 2 * width + 2
    result = cv2.copyMakeBorder(result, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
    # of as few bytes as it takes: images may be large
    smallest = np.min_scalar_type(-max(len(colours), 1))
    labels = np.pad(labels.astype(smallest), edge, mode="edge")
    for index in np.flatnonzero(count_labels(labels, len(colours))):
        mask = (labels == index).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        line = (0.35 * colours[index] + 0.65 * ground).astype(int).tolist()
        cv2.drawContours(result, contours, -1, line, width, cv2.LINE_AA)
    return result[edge:-edge, edge:-edge]


def _enlarge(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image and label map with the longer side at least ``MIN_OVERLAY_SIDE``."""
    height, width = labels.shape
    factor = MIN_OVERLAY_SIDE / max(height, width)
    if factor <= 1:
        return image, labels
    size = max(1, round(width * factor)), max(1, round(height * factor))
    # a smooth vote of the classes instead of nearest pixels: outlines without stairs
    best = np.full(size[::-1], -1.0, np.float32)
    larger = np.full(size[::-1], -1, np.int64)
    for index in np.unique(labels):
        vote = cv2.resize((labels == index).astype(np.float32), size)
        vote = cv2.GaussianBlur(vote, (0, 0), 0.5 * factor)
        wins = vote > best
        best[wins], larger[wins] = vote[wins], index
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), larger
