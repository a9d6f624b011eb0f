"""Words in pictures: the names of regions in their regions, and the legend beside the picture."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_INK, _MUTED, PAPER, _FRAME = (33, 37, 41), (134, 142, 150), (255, 255, 255), (206, 212, 218)
# up to this many words, those that were not found are listed too
_LIST_ABSENT_UP_TO = 12
# words are placed by a label map of this size at most, which is exact enough and quick
_PLACING_SIDE = 512
_LABELS_PER_CLASS = 3
_LONGEST_WORD = 36

# a legend's word, share of the picture, and colour if it has one
_Row = tuple[str, float, "tuple[int, int, int] | None"]


@functools.lru_cache(maxsize=16)
def text_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of all words in pictures; ``size`` in pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(_font_folder() / name), size)


def _font_folder() -> Path:
    # matplotlib brings a font that covers Latin, Greek and Cyrillic, so none has to be installed;
    # it is found and not imported, which would take a quarter of a second
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


def font_size(image: np.ndarray) -> int:
    """The size of words in a picture (H, W, 3), in pixels."""
    return max(13, round(max(image.shape[:2]) / 42))


def draw_words(panel: Image.Image, labels: np.ndarray, names: Sequence[str], size: int) -> None:
    """Write each class's word into its largest regions where it fits, in place."""
    scale = min(1.0, _PLACING_SIDE / max(labels.shape))
    small = (max(1, round(labels.shape[1] * scale)), max(1, round(labels.shape[0] * scale)))
    reduced = cv2.resize(labels.astype(np.int32), small, interpolation=cv2.INTER_NEAREST)
    draw = ImageDraw.Draw(panel, "RGBA")
    font = text_font(size, bold=True)
    height = round(1.6 * size)
    for index in np.unique(reduced[reduced >= 0]):
        name = _short(names[index])
        width = round(font.getlength(name) + 0.9 * size)
        for x, y in _places((reduced == index).astype(np.uint8), (width, height), scale):
            left, top = round(x - width / 2), round(y - height / 2)
            corners = (left, top, left + width, top + height)
            draw.rounded_rectangle(corners, radius=height // 3, fill=(0, 0, 0, 150))
            draw.text((left + width / 2, top + height / 2), name, "white", font, anchor="mm")


def _places(mask: np.ndarray, box: tuple[int, int], scale: float) -> list[tuple[float, float]]:
    """Centres, in the full picture, where a box fits into the largest parts of a reduced mask."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    largest = 1 + np.argsort(-stats[1:count, cv2.CC_STAT_AREA], kind="stable")
    width, height = (max(1, int(np.ceil(side * scale))) for side in box)
    places = []
    for part in largest[:_LABELS_PER_CLASS]:
        # outside of the picture counts as outside of the region
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


def legend_rows(names: Sequence[str], shares: np.ndarray, colours: np.ndarray) -> list[_Row]:
    """Classes in the picture, the largest first; then what has no class and what is not there."""
    order = [int(i) for i in np.argsort(-shares, kind="stable")]
    rows: list[_Row] = []
    for i in order:
        if shares[i] > 0:
            red, green, blue = colours[i].tolist()
            rows.append((_short(names[i]), float(shares[i]), (red, green, blue)))
    nothing = 1.0 - float(shares.sum())
    if nothing > 0.0005:
        rows.append(("no class", nothing, None))
    if len(names) <= _LIST_ABSENT_UP_TO:
        rows += [(_short(names[i]), 0.0, None) for i in order if shares[i] == 0]
    return rows


def draw_legend(rows: list[_Row], size: int, height: int) -> Image.Image:
    """Swatch, word and share of the picture for every row, in columns of about ``height``."""
    font, line = text_font(size), round(size * 1.75)
    per_column = max(8, (height - size) // line)
    columns = [rows[i : i + per_column] for i in range(0, len(rows), per_column)]
    share_width = font.getlength("100.0 %")
    widths = [
        round(3.6 * size + max(font.getlength(name) for name, _, _ in column) + share_width)
        for column in columns
    ]
    tallest = max((len(column) for column in columns), default=0)
    legend = Image.new("RGB", (sum(widths) + size, tallest * line + size), PAPER)
    draw = ImageDraw.Draw(legend)
    left = size
    for column, width in zip(columns, widths, strict=True):
        for row, (name, share, colour) in enumerate(column):
            middle = size // 2 + row * line + line // 2
            swatch = (left, middle - size * 0.55, left + size * 1.1, middle + size * 0.55)
            draw.rounded_rectangle(swatch, size * 0.25, fill=colour or PAPER, outline=_FRAME)
            ink = _INK if colour else _MUTED
            text = f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"
            text = text if share else "not found"
            draw.text((left + 1.7 * size, middle), name, ink, font, anchor="lm")
            draw.text((left + width - size, middle), text, _MUTED, font, anchor="rm")
        left += width
    return legend


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_WORD else f"{name[: _LONGEST_WORD - 1].rstrip()}…"
