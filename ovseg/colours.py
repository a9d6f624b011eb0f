"""Colours of classes that are told apart, by readers with any colour vision.

A class has the same colour in every image: it goes by the class's index.
"""

from __future__ import annotations

import functools

import numpy as np

from ovseg.errors import UserError
from ovseg.utils.label_maps import row_bands

# clear, well separated colours for the first classes; the others are chosen to be far from these
_FIRST_COLOURS = (
    (255, 99, 72), (41, 128, 255), (46, 196, 120), (255, 195, 18), (156, 82, 240),
    (0, 201, 219), (240, 80, 160), (150, 190, 30), (190, 110, 50), (95, 105, 200),
)  # fmt: skip
_FIRST_COLORBLIND = (0, 114, 178)
# what the cones' defects make of linear RGB: protanopia, deuteranopia, tritanopia of full severity.
# Machado, Oliveira, Fernandes: A Physiologically-based Model for Simulation of Color Vision
# Deficiency, IEEE TVCG 2009, table 1
_DEFECTS = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
# of sRGB's primaries
_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
PALETTES = ("default", "colorblind")


@functools.lru_cache(maxsize=16)
def palette(n_colours: int, kind: str = "default") -> np.ndarray:
    """Distinct colours. A shorter palette is the start of a longer one.

    Each further colour is that of a fixed grid which is farthest, in CIELAB, from all before it;
    grey and glaring ones are left out.

    Args:
        n_colours: how many.
        kind: "default": begins with ten colours chosen by hand, and dark and pale ones are left
            out. "colorblind": the distance is the least of those that readers of normal vision and
            of the three colour vision deficiencies see, so colours differ in lightness too.

    Returns:
        uint8 (n_colours, 3), RGB, read-only.

    Raises:
        UserError: an unknown kind.
    """
    if kind not in PALETTES:
        raise UserError(f"palette {kind!r} is not known; choose from {', '.join(PALETTES)}")
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _to_lab(grid)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    if kind == "colorblind":
        views: tuple[str | None, ...] = (None, *_DEFECTS)
        colours = [np.array(_FIRST_COLORBLIND, np.uint8)]
        keep = (lab[:, 0] > 22) & (lab[:, 0] < 93) & (chroma > 18)
    else:
        views = (None,)
        colours = [np.array(colour, np.uint8) for colour in _FIRST_COLOURS]
        keep = (lab[:, 0] > 35) & (lab[:, 0] < 90) & (chroma > 25) & (chroma < 92)
    grid = grid[keep]
    seen = np.stack([_to_lab(as_seen(grid, view)) for view in views])

    def from_colour(colour: np.ndarray) -> np.ndarray:
        own = [_to_lab(as_seen(colour[None], view)) for view in views]
        return np.linalg.norm(seen - np.stack(own), axis=2).min(axis=0)

    distance = np.min([from_colour(colour) for colour in colours], axis=0)
    while len(colours) < n_colours:
        # after some thousand colours the grid is used up and argmax starts over, still harmless
        colours.append(grid[int(distance.argmax())])
        distance = np.minimum(distance, from_colour(colours[-1]))
    result = np.stack(colours[:n_colours]) if n_colours else np.zeros((0, 3), np.uint8)
    result.setflags(write=False)
    return result


def as_seen(colours: np.ndarray, defect: str | None) -> np.ndarray:
    """Colours as somebody with a colour vision deficiency sees them.

    Args:
        colours: uint8 (N, 3), RGB.
        defect: "protanopia", "deuteranopia", "tritanopia"; None: normal vision.

    Returns:
        uint8 (N, 3), RGB.
    """
    if defect is None:
        return colours
    seen = np.clip(_linear(colours) @ np.array(_DEFECTS[defect]).T, 0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return np.rint(255 * seen).astype(np.uint8)


def color_map(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Colour a label map.

    Args:
        labels: integer (H, W), in -1..C-1; negative values become black.
        colours: uint8 (C, 3), RGB.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    with_none = np.concatenate([colours, np.zeros((1, 3), np.uint8)])
    coloured = np.empty((*labels.shape, 3), np.uint8)
    for rows in row_bands(labels):
        band = labels[rows]
        coloured[rows] = with_none[np.where(band < 0, len(colours), band)]
    return coloured


def _to_lab(colours: np.ndarray) -> np.ndarray:
    """uint8 sRGB (N, 3) to CIELAB of daylight (D65), float (N, 3)."""
    xyz = _linear(colours) @ np.array(_XYZ).T / np.sum(_XYZ, axis=1)
    cube = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = cube.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def _linear(colours: np.ndarray) -> np.ndarray:
    """uint8 sRGB as linear RGB, 0..1."""
    encoded = colours / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
