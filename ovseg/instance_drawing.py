"""Segments in an image: each in a shade of its class's colour, with its name and number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ovseg.colours import palette
from ovseg.plain_drawing import drawing

_OPACITY = 0.5
# how far shades go towards black and white
_DEPTH = 0.55
# steps of the golden section never come back to a shade, and stay apart however many there are
_STEP = 0.618034


def draw_segments(
    image: np.ndarray,
    places: np.ndarray,
    labels: Sequence[int],
    class_names: Sequence[str],
    kind: str = "default",
) -> np.ndarray:
    """The image with its segments, their outlines and names, and a legend on its right.

    Segments without a pixel are left out.

    Args:
        image: uint8 (H, W, 3), RGB, 0..255.
        places: integer (H, W); the segment of every pixel, counted from 0, -1 for none.
        labels: the class of every segment.
        class_names: of the classes; they have the colours of a label map of as many classes.
        kind: one of :data:`ovseg.colours.PALETTES`.

    Returns:
        uint8 (H', W', 3), RGB, as :func:`ovseg.visualizer.draw_overlay`.
    """
    seen = np.unique(places[places >= 0])
    labels = [labels[place] for place in seen.tolist()]
    places = np.where(places >= 0, np.searchsorted(seen, places), -1)
    names = numbered_names(labels, class_names)
    colours = shades(labels, palette(len(class_names), kind))
    return drawing()(image, places, names, _OPACITY, colours)


def numbered_names(labels: Sequence[int], class_names: Sequence[str]) -> list[str]:
    """The name of every segment: that of its class, numbered where there are several of it."""
    counts, seen = Counter(labels), Counter[int]()
    names = []
    for label in labels:
        seen[label] += 1
        names.append(class_names[label] + (f" {seen[label]}" if counts[label] > 1 else ""))
    return names


def shades(labels: Sequence[int], colours: np.ndarray) -> np.ndarray:
    """The colour of every segment: uint8 (S, 3), RGB, 0..255.

    The first segment of a class has the class's own colour, the others lighter or darker ones.

    Args:
        labels: the class of every segment.
        colours: of the classes, uint8 (C, 3), RGB.
    """
    seen = Counter[int]()
    found = np.zeros((len(labels), 3), np.uint8)
    for place, label in enumerate(labels):
        lightness = 2 * ((seen[label] * _STEP + 0.5) % 1 - 0.5)
        share, end = abs(lightness) * _DEPTH, 255.0 * (lightness > 0)
        found[place] = np.rint((1 - share) * colours[label] + share * end)
        seen[label] += 1
    return found
