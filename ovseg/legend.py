"""The legend beside an image: colours, words and shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ovseg.fonts import SMALLEST_WORD, WORD_FACTORS, short_word, text_font

#: behind legends
PAPER = (255, 255, 255)
_INK, _MUTED, _FRAME = (33, 37, 41), (134, 142, 150), (206, 212, 218)
# up to this many words, those that were not found are listed too
_LIST_ABSENT_UP_TO = 12
# up to this many words, a legend that stays the same lists them all
_LIST_STEADY_UP_TO = 40
# a legend is written smaller rather than in more columns than these; a line is so many sizes high
_LEGEND_COLUMNS = 2
_LINE = 1.75

# a word, its share of the image, and its colour if it has one
_Row = tuple[str, "float | None", "tuple[int, int, int] | None"]


def legend_rows(names: Sequence[str], shares: np.ndarray, colours: np.ndarray) -> list[_Row]:
    """Classes in the image, the largest first; then what has no class and what is not there."""
    order = [int(i) for i in np.argsort(-shares, kind="stable")]
    rows: list[_Row] = []
    for i in order:
        if shares[i] > 0:
            rows.append((short_word(names[i]), float(shares[i]), _rgb(colours[i])))
    nothing = 1.0 - float(shares.sum())
    if nothing > 0.0005:
        rows.append(("no class", nothing, None))
    if len(names) <= _LIST_ABSENT_UP_TO:
        rows += [(short_word(names[i]), 0.0, None) for i in order if shares[i] == 0]
    return rows


def steady_rows(names: Sequence[str], colours: np.ndarray) -> list[_Row]:
    """All classes in their order, without shares; none where they are too many to find one."""
    if len(names) > _LIST_STEADY_UP_TO:
        return []
    return [(short_word(name), None, _rgb(c)) for name, c in zip(names, colours, strict=True)]


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = colour.tolist()
    return red, green, blue


def beside(panel: Image.Image, rows: list[_Row], size: int) -> Image.Image:
    """An image with the legend of ``rows`` on its right, in letters of ``size`` pixels."""
    legend = draw_legend(rows, size, panel.height)
    height = max(panel.height, legend.height)
    canvas = Image.new("RGB", (panel.width + legend.width, height), PAPER)
    canvas.paste(panel, (0, (height - panel.height) // 2))
    canvas.paste(legend, (panel.width, (height - legend.height) // 2))
    return canvas


def draw_legend(rows: list[_Row], size: int, height: int) -> Image.Image:
    """Swatch, word and share of the image for every row, in columns of about ``height``.

    Args:
        rows: a word, its share in 0..1, or None to leave it out, and its colour, if it has one.
        size: of the words in pixels, at most; many rows are written smaller.
        height: of the image beside the legend.
    """
    smallest = max(SMALLEST_WORD, round(WORD_FACTORS[-1] * size))
    while size > smallest and len(rows) > _LEGEND_COLUMNS * _rows_in(height, size):
        size -= 1
    if not rows:
        return Image.new("RGB", (0, 0), PAPER)
    font, line = text_font(size), round(_LINE * size)
    count = -(-len(rows) // _rows_in(height, size))  # of columns, all of about the same length
    per_column = -(-len(rows) // count)
    columns = [rows[i : i + per_column] for i in range(0, len(rows), per_column)]
    widths = [
        round(
            3.6 * size
            + max(font.getlength(name) for name, _, _ in column)
            + max(font.getlength(_share_text(share)) for _, share, _ in column)
        )
        for column in columns
    ]
    legend = Image.new("RGB", (sum(widths) + size, per_column * line + size), PAPER)
    draw = ImageDraw.Draw(legend)
    left = size
    for column, width in zip(columns, widths, strict=True):
        for row, (name, share, colour) in enumerate(column):
            middle = size // 2 + row * line + line // 2
            swatch = (left, middle - size * 0.55, left + size * 1.1, middle + size * 0.55)
            draw.rounded_rectangle(swatch, size * 0.25, fill=colour or PAPER, outline=_FRAME)
            ink = _INK if colour else _MUTED
            draw.text((left + 1.7 * size, middle), name, ink, font, anchor="lm")
            draw.text((left + width - size, middle), _share_text(share), _MUTED, font, anchor="rm")
        left += width
    return legend


def _rows_in(height: int, size: int) -> int:
    return max(8, (height - size) // round(_LINE * size))


def _share_text(share: float | None) -> str:
    if share is None:
        return ""
    if share == 0:
        return "not found"
    return f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"
