"""Words in images: the name of each region in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ovseg.fonts import SMALLEST_WORD, WORD_FACTORS, short_word, text_font

# words are placed by a label map of this size at most, which is exact enough and quick
_PLACING_SIDE = 512
_LABELS_PER_CLASS = 3
# x and y of a centre, in pixels of the full image
_Place = tuple[float, float]


@dataclass(frozen=True)
class Word:
    """A word that is written into an image.

    Attributes:
        label: of its class.
        text: as it is written.
        size: of its letters, in pixels.
        place: x and y of its centre, in pixels.
    """

    label: int
    text: str
    size: int
    place: _Place

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of its plate, in pixels."""
        width, height = _plate(self.text, self.size)
        left, top = round(self.place[0] - width / 2), round(self.place[1] - height / 2)
        return left, top, left + width, top + height


def draw_words(panel: Image.Image, words: Sequence[Word]) -> None:
    """Write words on dark plates, in place."""
    draw = ImageDraw.Draw(panel, "RGBA")
    for word in words:
        left, top, right, bottom = word.box
        draw.rounded_rectangle(word.box, radius=(bottom - top) // 3, fill=(0, 0, 0, 150))
        middle = ((left + right) / 2, (top + bottom) / 2)
        draw.text(middle, word.text, "white", text_font(word.size, bold=True), anchor="mm")


def place_words(labels: np.ndarray, names: Sequence[str], size: int) -> list[Word]:
    """Find a place for each class's word in its largest regions.

    A word that fits nowhere is tried smaller, then beside its largest region where no class is; it
    never covers another class or another word, and is left out rather.

    Args:
        labels: integer (H, W), -1 where there is no class.
        names: of the classes.
        size: of the letters in pixels, at most.
    """
    scale = min(1.0, _PLACING_SIDE / max(labels.shape))
    small = (max(1, round(labels.shape[1] * scale)), max(1, round(labels.shape[0] * scale)))
    # what words must not cover: a class, or -1 for none, or -2 for a word
    ground = cv2.resize(labels.astype(np.int32), small, interpolation=cv2.INTER_NEAREST)
    found, areas = np.unique(ground[ground >= 0], return_counts=True)
    words: list[Word] = []
    for label in found[np.argsort(-areas, kind="stable")].tolist():
        text = short_word(names[label])
        tries = [(how, other) for how in (_inside, _beside) for other in _word_sizes(size)]
        for how, own_size in tries:
            box = _plate(text, own_size)
            places = how(ground, label, box, scale)
            for place in places:
                words.append(Word(label, text, own_size, place))
                ground[_covered(place, box, scale)] = -2
            if places:
                break
    return words


def _word_sizes(size: int) -> list[int]:
    smaller = [max(SMALLEST_WORD, round(factor * size)) for factor in WORD_FACTORS]
    return sorted({size, *(other for other in smaller if other < size)}, reverse=True)


def _plate(word: str, size: int) -> tuple[int, int]:
    """Width and height of a word's plate in pixels."""
    return round(text_font(size, bold=True).getlength(word) + 0.9 * size), round(1.6 * size)


def _covered(place: _Place, box: tuple[int, int], scale: float) -> tuple[slice, slice]:
    """The rows and columns of the reduced label map that a plate lies on."""
    (x, y), (width, height) = place, box
    left, top = int((x - width / 2) * scale), int((y - height / 2) * scale)
    right, bottom = np.ceil([(x + width / 2) * scale, (y + height / 2) * scale]).astype(int)
    return slice(max(0, top), bottom + 1), slice(max(0, left), right + 1)


def _inside(ground: np.ndarray, label: int, box: tuple[int, int], scale: float) -> list[_Place]:
    """Centres, in the full image, where a box fits into a class's largest parts."""
    mask = (ground == label).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    largest = 1 + np.argsort(-stats[1:count, cv2.CC_STAT_AREA], kind="stable")
    # a pixel more on every side, so that plates keep off outlines and the edge
    width, height = (2 + max(1, int(np.ceil(side * scale))) for side in box)
    places = []
    for part in largest[:_LABELS_PER_CLASS]:
        # outside of the image counts as outside of the region
        inside = cv2.copyMakeBorder((parts == part).astype(np.uint8), 1, 1, 1, 1, 0, value=0)
        fits = cv2.erode(inside, np.ones((height, width), np.uint8), borderValue=0)
        if not fits.any():
            continue
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3) * fits
        # of the deepest places the most central one
        deepest = np.argwhere(depth > 0.95 * depth.max())
        y, x = deepest[np.linalg.norm(deepest - deepest.mean(axis=0), axis=1).argmin()]
        places.append(((float(x) - 0.5) / scale, (float(y) - 0.5) / scale))
    return places


def _beside(ground: np.ndarray, label: int, box: tuple[int, int], scale: float) -> list[_Place]:
    """The centre of a box below, above, right or left of a class's largest part, on no class."""
    mask = (ground == label).astype(np.uint8)
    count, _parts, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=4)
    part = 1 + int(stats[1:count, cv2.CC_STAT_AREA].argmax())
    left, top, width, height, _ = (value / scale for value in stats[part].tolist())
    x, y = (value / scale for value in centres[part].tolist())
    away_x, away_y = 0.6 * box[0] + 2 / scale, 0.8 * box[1] + 2 / scale
    for place in (
        (x, top + height + away_y),
        (x, top - away_y),
        (left + width + away_x, y),
        (left - away_x, y),
    ):
        half = np.array(box) / 2
        ends = np.array(ground.shape[::-1]) / scale - 1
        if (np.array(place) < half + 1).any() or (np.array(place) + half > ends).any():
            continue
        if (ground[_covered(place, box, scale)] == -1).all():
            return [place]
    return []
