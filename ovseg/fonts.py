"""The font of images, and how large its letters are."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
from PIL import ImageFont

_LONGEST_WORD = 36
# words that do not fit are tried at these shares of their size, but not below so many pixels
WORD_FACTORS = (0.8, 0.65)
SMALLEST_WORD = 11


@functools.lru_cache(maxsize=16)
def text_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of all words in images; ``size`` in pixels.

    matplotlib brings a font that covers Latin, Greek and Cyrillic, so none has to be installed.
    Without it, as where only exported models run, it is Pillow's own, which covers Latin.
    """
    # found and not imported, which would take a quarter of a second
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / name), size)


def font_size(image: np.ndarray) -> int:
    """The size of words in an image (H, W, 3), in pixels."""
    return max(13, round(max(image.shape[:2]) / 42))


def short_word(name: str) -> str:
    """A name as it is written in images: long ones are cut."""
    return name if len(name) <= _LONGEST_WORD else f"{name[: _LONGEST_WORD - 1].rstrip()}…"
