"""Colour masks: the colour of a pixel says its class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageColor

from ovseg.data.label_maps import read_colours
from ovseg.errors import UserError

from .truth import Decoded, Truth, decode_codes


@dataclass(frozen=True)
class ColourMap(Truth):
    """An image whose colours stand for classes.

    Attributes:
        label_of: red * 65536 + green * 256 + blue -> class, or the ignored label for the colour
            that is meant to be ignored.
    """

    label_of: Mapping[int, int]

    @property
    def place(self) -> str:
        return f"colour mask {self.path}"

    @property
    def key(self) -> str:
        return "colors"

    def decode(self) -> Decoded:
        red, green, blue = np.moveaxis(read_colours(self.path).astype(np.int32), -1, 0)
        colours = red * 65536 + green * 256 + blue
        return decode_codes(
            colours, self.label_of, self.ignore_label, lambda code: f"colour {hex_colour(code)}"
        )


def hex_colour(colour: int) -> str:
    """``#rrggbb``."""
    return f"#{colour:06x}"


def parse_colour(file: Path, key: str, value: Any) -> int:
    """The number of a colour: ``"#ff0000"``, ``"#f00"``, ``"rgb(255, 0, 0)"`` or ``red``.

    Raises:
        UserError: it is none of these.
    """
    try:
        red, green, blue = ImageColor.getrgb(str(value).strip())[:3]
    except ValueError as error:
        raise UserError(
            f"{file}: {key}, {value!r} is no colour; write it as '#ff0000', in quotes"
        ) from error
    return red * 65536 + green * 256 + blue


def read_colours_key(file: Path, entries: Any) -> dict[int, Any]:
    """The mapping ``colors`` of a yaml file: colours, as their numbers -> words.

    Raises:
        UserError: it is no such mapping, or two classes have one colour.
    """
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{file}: colors is no mapping; write colors: {{'#ff0000': ball}}")
    colours: dict[int, Any] = {}
    for text, words in entries.items():
        colour = parse_colour(file, "colors", text)
        if colour in colours:
            raise UserError(
                f"{file}: colors, classes {colours[colour]!r} and {words!r} have one colour, "
                f"{hex_colour(colour)}; give each its own"
            )
        colours[colour] = words
    return colours
