"""A prediction as a picture: coloured regions with outlines, words in them, and a legend beside.

Pictures are RGB, uint8 (H, W, 3), 0..255; label maps are integers (H, W), -1 where there is no
class. A class has the same colour in every picture: it goes by the class's index.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# clear, well separated colours for the first classes; the others are chosen to be far from these
_FIRST_COLOURS = (
    (255, 99, 72), (41, 128, 255), (46, 196, 120), (255, 195, 18), (156, 82, 240),
    (0, 201, 219), (240, 80, 160), (150, 190, 30), (190, 110, 50), (95, 105, 200),
)  # fmt: skip
#: a picture's longer side in the overlay, at least; smaller pictures are enlarged
MIN_OVERLAY_SIDE = 640
_INK, _MUTED, _PAPER, _FRAME = (33, 37, 41), (134, 142, 150), (255, 255, 255), (206, 212, 218)
# up to this many words, those that were not found are listed too
_LIST_ABSENT_UP_TO = 12
# words are placed by a label map of this size at most, which is exact enough and quick
_PLACING_SIDE = 512
_LABELS_PER_CLASS = 3
_LONGEST_WORD = 36

# a legend's word, share of the picture, and colour if it has one
_Row = tuple[str, float, "tuple[int, int, int] | None"]


@functools.lru_cache(maxsize=16)
def palette(n_colours: int) -> np.ndarray:
    """Distinct colours: uint8 (n_colours, 3), RGB. A shorter palette is the start of a longer one.

    After ten colours chosen by hand, each further one is that of a fixed grid which is farthest, in
    CIELAB, from all before it; dark, pale, grey and glaring ones are left out.
    """
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _to_lab(grid)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    keep = (lab[:, 0] > 35) & (lab[:, 0] < 90) & (chroma > 25) & (chroma < 92)
    grid, lab = grid[keep], lab[keep]
    colours = [np.array(colour, np.uint8) for colour in _FIRST_COLOURS]
    first = _to_lab(np.stack(colours))
    distance = np.linalg.norm(lab[:, None] - first[None], axis=2).min(axis=1)
    while len(colours) < n_colours:
        # after some thousand colours the grid is used up and argmax starts over, still harmless
        chosen = int(distance.argmax())
        colours.append(grid[chosen])
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen], axis=1))
    result = np.stack(colours[:n_colours]) if n_colours else np.zeros((0, 3), np.uint8)
    result.setflags(write=False)
    return result


def color_map(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Colour a label map.

    Args:
        labels: integer (H, W), in -1..C-1; negative values become black.
        colours: uint8 (C, 3), RGB.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    with_none = np.concatenate([colours, np.zeros((1, 3), np.uint8)])
    return with_none[np.where(labels < 0, len(colours), labels)]


def draw_overlay(
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    opacity: float = 0.5,
    colours: np.ndarray | None = None,
) -> np.ndarray:
    """The picture with its regions, their outlines and names, and a legend on its right.

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: integer (H, W), -1 where there is no class.
        names: of the classes.
        opacity: of the regions' colours, 0..1.
        colours: of the classes, uint8 (C, 3), RGB; None: of :func:`palette`.

    Returns:
        uint8 (H', W', 3), RGB. Pictures with sides below ``MIN_OVERLAY_SIDE`` are enlarged.

    Raises:
        ValueError: labels and image differ in size, or an opacity outside 0..1.
    """
    if labels.shape != image.shape[:2]:
        raise ValueError(f"labels {labels.shape} do not fit the image {image.shape[:2]}")
    areas = np.bincount(labels[labels >= 0], minlength=len(names))
    shares = areas / max(labels.size, 1)
    colours = palette(len(names)) if colours is None else colours
    image, labels = _enlarge(image, labels)
    panel = Image.fromarray(draw_regions(image, labels, colours, opacity))
    size = _font_size(image)
    _draw_words(panel, labels, names, size)
    legend = _draw_legend(_legend_rows(names, shares, colours), size, panel.height)
    height = max(panel.height, legend.height)
    canvas = Image.new("RGB", (panel.width + legend.width, height), _PAPER)
    canvas.paste(panel, (0, (height - panel.height) // 2))
    canvas.paste(legend, (panel.width, (height - legend.height) // 2))
    return np.asarray(canvas)


def draw_regions(
    image: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float = 0.5
) -> np.ndarray:
    """Tint the regions of ``labels`` and outline them; pixels of no class keep their colour.

    Shapes as for :func:`color_map`, opacity as for :func:`draw_overlay`; returns uint8 (H, W, 3),
    RGB.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity} must be in 0..1")
    tinted = cv2.addWeighted(image, 1 - opacity, color_map(labels, colours), opacity, 0)
    result = np.where((labels >= 0)[..., None], tinted, image)
    width = max(1, round(max(labels.shape) / 450))
    # with the border continued outwards no outline runs along the edge of the picture
    edge = 2 * width + 2
    result = cv2.copyMakeBorder(result, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
    labels = np.pad(labels, edge, mode="edge")
    for index in np.unique(labels[labels >= 0]):
        mask = (labels == index).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        line = (0.35 * colours[index] + 0.65 * 255).astype(int).tolist()
        cv2.drawContours(result, contours, -1, line, width, cv2.LINE_AA)
    return result[edge:-edge, edge:-edge]


def _to_lab(colours: np.ndarray) -> np.ndarray:
    """uint8 RGB (N, 3) to CIELAB, float (N, 3)."""
    return cv2.cvtColor(colours[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]


def _enlarge(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Picture and label map with the longer side at least ``MIN_OVERLAY_SIDE``."""
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


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_WORD else f"{name[: _LONGEST_WORD - 1].rstrip()}…"


def _font_size(image: np.ndarray) -> int:
    return max(13, round(max(image.shape[:2]) / 42))


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


def _draw_words(panel: Image.Image, labels: np.ndarray, names: Sequence[str], size: int) -> None:
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


def _legend_rows(names: Sequence[str], shares: np.ndarray, colours: np.ndarray) -> list[_Row]:
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


def _draw_legend(rows: list[_Row], size: int, height: int) -> Image.Image:
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
    legend = Image.new("RGB", (sum(widths) + size, tallest * line + size), _PAPER)
    draw = ImageDraw.Draw(legend)
    left = size
    for column, width in zip(columns, widths, strict=True):
        for row, (name, share, colour) in enumerate(column):
            middle = size // 2 + row * line + line // 2
            swatch = (left, middle - size * 0.55, left + size * 1.1, middle + size * 0.55)
            draw.rounded_rectangle(swatch, size * 0.25, fill=colour or _PAPER, outline=_FRAME)
            ink = _INK if colour else _MUTED
            text = f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"
            text = text if share else "not found"
            draw.text((left + 1.7 * size, middle), name, ink, font, anchor="lm")
            draw.text((left + width - size, middle), text, _MUTED, font, anchor="rm")
        left += width
    return legend
