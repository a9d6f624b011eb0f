"""Reading images of any common kind as plain RGB."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from ovseg.errors import UserError
from ovseg.utils.deep_images import (
    check_planes,
    declared_top,
    deep_values,
    describe_tiff,
    is_deep,
    opencv_values,
    tiff_tags,
    tiff_top,
    to_8_bit,
)
from ovseg.utils.io import user_path

_HEIC = frozenset({".heic", ".heif"})
#: what a folder is searched for; a file given by name may have any suffix that Pillow reads
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2"}
    | {".avif"}
    | _HEIC
)

#: environment variable of the largest image that is read, in millions of pixels. The config key
#: INPUT.MAX_MEGAPIXELS sets it, so that processes that a run starts have it too
MEGAPIXELS = "OVSEG_MAX_MEGAPIXELS"
DEFAULT_MEGAPIXELS = 179.0  # where Pillow too suspects a small file that fills the memory

_ORIENTATION, _ON_ITS_SIDE = 0x0112, frozenset({5, 6, 7, 8})
_BAND = 1 << 24  # pixels that are copied at once
_opening = threading.Lock()


def is_writable(suffix: str) -> bool:
    """Whether Pillow, as it is installed, writes images of a suffix."""
    Image.init()
    return Image.registered_extensions().get(suffix.lower()) in Image.SAVE


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image with Pillow, of at most ``$OVSEG_MAX_MEGAPIXELS`` million pixels.

    Raises:
        UserError: it has more, or is a HEIC image without ``pillow-heif``.
        OSError: it is missing or no image.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        # reading a pipe or a terminal would wait for whoever writes to it
        raise UserError(f"input {str(path)!r} is no regular file; give an image's file")
    if _is_heic(path):
        _register_heic(path)
    # Pillow's own limit can only be set for all; it is looked at when a file is opened
    with path.open("rb") as stream:  # of a path, Pillow maps some turned TIFFs wrongly
        with _opening:
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                file = Image.open(stream)
            finally:
                Image.MAX_IMAGE_PIXELS = before
        with file:
            _check_size(path, *file.size)
            yield file


def max_megapixels() -> float:
    """The limit that the environment sets.

    Raises:
        UserError: it is no number above 0.
    """
    text = os.environ.get(MEGAPIXELS, "")
    try:
        limit = float(text) if text else DEFAULT_MEGAPIXELS
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise UserError(f"environment variable {MEGAPIXELS} {text!r}: give a number above 0")
    return limit


def allow_megapixels(limit: float) -> None:
    """Read images of at most ``limit`` million pixels from now on; 0: as the environment says."""
    if limit:
        os.environ[MEGAPIXELS] = f"{limit:g}"


def _check_size(path: Path, width: int, height: int) -> None:
    pixels, limit = width * height / 1e6, max_megapixels()
    if pixels > limit:
        raise UserError(
            f"image {str(path)!r} has {pixels:.1f} megapixels ({width} x {height}), more than "
            f"the limit of {limit:g}; set the config key INPUT.MAX_MEGAPIXELS {pixels + 1:.0f} "
            f"(without a config the environment variable {MEGAPIXELS}), or give a smaller one"
        )


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file.

    Grey, palette and CMYK images are converted, those of more than 8 bits scaled by the range
    that they declare or use (:mod:`ovseg.utils.deep_images`). Transparency is laid over white,
    and the orientation in the EXIF data is honoured. Of an animation the first frame is taken.

    Returns:
        uint8 (H, W, 3), RGB, 0..255.

    Raises:
        UserError: the file is missing, a folder, not readable, too large, or no image.
    """
    if not os.fspath(path) or "://" in os.fspath(path):
        what = "is a URL, and files are read" if os.fspath(path) else "is empty"
        raise UserError(f"input {os.fspath(path)!r} {what}; give the path of an image")
    path = user_path(path)
    if not path.exists():
        raise UserError(f"input {str(path)!r} does not exist; check the path")
    if path.is_dir():
        raise UserError(f"input {str(path)!r} is a folder, an image file is needed")
    try:
        return _read(path)
    except UserError:
        raise
    except Exception as error:  # decoders raise nearly anything on a broken file
        raise UserError(
            f"input {str(path)!r} cannot be read as an image ({why_unreadable(error, path)}); "
            "give an intact JPEG, PNG, WebP, AVIF, TIFF or BMP file"
        ) from error


def why_unreadable(error: Exception, path: str | os.PathLike[str]) -> str:
    """Why an image cannot be read, without the decoder's own names."""
    if isinstance(error, UnidentifiedImageError):
        empty = Path(path).stat().st_size == 0
        return "the file is empty" if empty else "it is no image of a known kind"
    return " ".join(str(error).split()) or type(error).__name__


def _read(path: Path) -> np.ndarray:
    try:
        with open_image(path) as file:
            return rgb_array(file, path)
    except UnidentifiedImageError:
        # TIFFs of several channels of 32 bits are beyond Pillow
        tags = tiff_tags(path)
        if tags:
            _check_size(path, int(tags.get(256, 0)), int(tags.get(257, 0)))
            check_planes(tags)
        values = opencv_values(path) if tags else None
        if tags and (values is None or values.dtype == np.uint8):  # of less bits than there are
            raise ValueError(describe_tiff(tags)) from None
        if values is None:
            raise
        return _pixels(_to_rgb(Image.fromarray(to_8_bit(values, tiff_top(tags), str(path)))))


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of an image as :func:`read_image` gives it, from the head of the file.

    Raises:
        UserError: the file is missing or no image.
    """
    try:
        with open_image(path) as file:
            width, height = file.size
            if isinstance(file, TiffImageFile):  # whose size Pillow has turned already
                width, height = file.tag_v2[IMAGEWIDTH], file.tag_v2[IMAGELENGTH]
            turned = file.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
            return (width, height) if turned else (height, width)
    except UserError:
        raise
    except Exception as error:  # as in read_image
        raise UserError(
            f"input {os.fspath(path)!r} cannot be read as an image ({why_unreadable(error, path)})"
        ) from error


def is_turned(path: str | os.PathLike[str]) -> bool:
    """Whether :func:`read_image` swaps width and height of a file, as its EXIF data say."""
    try:
        with open_image(path) as file:
            return file.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    except Exception:  # as in read_image
        return False


def rgb_array(image: Image.Image, path: Path | None = None) -> np.ndarray:
    """A Pillow image of any mode as uint8 (H, W, 3), RGB; see :func:`read_image`.

    Args:
        image: whose file, if it has one, is open.
        path: of its file, if it has one; without it 16 bits in several channels become the upper 8.

    Raises:
        UserError: it is too large or of a kind that is not read.
        OSError: its file is broken.
    """
    deep, form = is_deep(image, path), image.format
    check_planes(getattr(image, "tag_v2", {}))
    top = declared_top(image, path) if deep else None
    values = deep_values(image, path) if deep else None
    image.load()  # Pillow turns a TIFF upright then
    orientation = image.getexif().get(_ORIENTATION, 1)
    if values is not None:
        image = Image.fromarray(to_8_bit(values, top, str(path or "")))
        # a TIFF is upright already
        image.getexif()[_ORIENTATION] = 1 if form == "TIFF" else orientation
    # only where it is needed: it makes a copy, of hundreds of megabytes
    if orientation in range(2, 9):
        image = ImageOps.exif_transpose(image) or image  # the types of Pillow 10 allow for None
    return _pixels(_to_rgb(image))


def _pixels(image: Image.Image) -> np.ndarray:
    """An RGB image as an array, without the two further copies that NumPy would make at once."""
    width, height = image.size
    result = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND // max(1, width))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        result[start:stop] = np.asarray(image.crop((0, start, width, stop)))
    return result


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_heic(path: Path) -> bool:
    """Whether a file is one of HEIC, as telephones write them, under whatever suffix."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head[4:8] == b"ftyp" and head[8:12] in {
        *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
    }


def _register_heic(path: Path) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise UserError(
            f"input {str(path)!r} is a HEIC image, which needs the package pillow-heif; install "
            "it with: pip install pillow-heif"
        ) from error
    pillow_heif.register_heif_opener()
