"""The font of images, and how large its letters are."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path

import numpy as np
from PIL import ImageFont

from ovseg.errors import UserError

#: environment variable of a font file, for names in scripts that the usual font lacks
FONT = "OVSEG_FONT"
_LONGEST_WORD = 36
# words that do not fit are tried at these shares of their size, but not below so many pixels
WORD_FACTORS = (0.8, 0.65)
SMALLEST_WORD = 11


@functools.lru_cache(maxsize=16)
def text_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of all words in images; ``size`` in pixels.

    It is the file that the environment variable ``OVSEG_FONT`` names. Without one, matplotlib
    brings a font that covers Latin, Greek, Cyrillic, Hebrew and Arabic, so none has to be
    installed; and without that, as where only exported models run, it is Pillow's own, which covers
    Latin.

    Raises:
        UserError: ``OVSEG_FONT`` is no font.
    """
    own = os.environ.get(FONT)
    if own:
        try:
            return ImageFont.truetype(own, size)
        except OSError as error:
            raise UserError(
                f"environment variable {FONT} {own!r} cannot be read as a font ({error}); give a "
                "TrueType or OpenType file"
            ) from error
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
    shorter, longer = sorted(image.shape[:2])
    return max(13, round(min(longer / 42, shorter / 12)))


def short_word(name: str) -> str:
    """A name as it is written in images: long ones are cut."""
    return name if len(name) <= _LONGEST_WORD else f"{name[: _LONGEST_WORD - 1].rstrip()}…"
