"""Reading pictures of any common kind as plain RGB."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ovseg.errors import UserError

#: what a folder is searched for; a file given by name may have any suffix that Pillow reads
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2"}
)


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture file.

    Grey, 16-bit, palette and CMYK pictures are converted, transparency is laid over white, and the
    orientation in the EXIF data is honoured. Of an animation the first frame is taken.

    Returns:
        uint8 (H, W, 3), RGB, 0..255.

    Raises:
        UserError: the file is missing, a folder, not readable, or no picture.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"input {str(path)!r} does not exist; check the path")
    if path.is_dir():
        raise UserError(f"input {str(path)!r} is a folder, a picture file is needed")
    try:
        with Image.open(path) as file:
            return rgb_array(file)
    except Exception as error:  # decoders raise nearly anything on a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"input {str(path)!r} cannot be read as a picture ({reason}); "
            "give an intact JPEG, PNG, WebP, TIFF or BMP file"
        ) from error


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of a picture as :func:`read_image` gives it, from the head of the file.

    Raises:
        UserError: the file is missing or no picture.
    """
    try:
        with Image.open(path) as file:
            turned = file.getexif().get(ExifTags.Base.Orientation) in {5, 6, 7, 8}
            return (file.width, file.height) if turned else (file.height, file.width)
    except Exception as error:  # as in read_image
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"input {os.fspath(path)!r} cannot be read as a picture ({reason})"
        ) from error


def rgb_array(image: Image.Image) -> np.ndarray:
    """A Pillow image of any mode as uint8 (H, W, 3), RGB; see :func:`read_image`."""
    # "or": the types of Pillow 10 say that there may be None
    return np.array(_to_rgb(ImageOps.exif_transpose(image) or image))


def find_images(patterns: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Expand files, folders and patterns: pictures without repeats, and an error for each failure.

    Raises:
        UserError: there is nothing to expand.
    """
    if not patterns:
        raise UserError("no input; give pictures, folders or patterns such as 'photos/*.jpg'")
    found: dict[Path, Path] = {}
    errors = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            paths = _pictures_in(path)
            problem = f"input folder {pattern!r} holds no pictures ({_known_suffixes()})"
        elif path.exists():  # before the pattern: a name may hold brackets
            paths, problem = [path], ""
        else:
            paths = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
            paths = [match for match in paths if match.is_file()]
            problem = f"input {pattern!r}: no such file, folder or pattern match; check the path"
        if not paths:
            errors.append(problem)
        found.update((match.resolve(), match) for match in paths if match.resolve() not in found)
    return list(found.values()), errors


def _pictures_in(folder: Path) -> list[Path]:
    files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".")]
    pictures = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    # results of an earlier run with the same folder as --output are no inputs
    return [file for file in pictures if not _is_result(file)]


def _is_result(file: Path) -> bool:
    name, mark, _ = file.stem.rpartition("_")
    return (
        bool(mark)
        and file.stem.endswith(("_overlay", "_labels"))
        and (file.with_name(f"{name}.json").exists())
    )


def _known_suffixes() -> str:
    return ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(grey: np.ndarray) -> np.ndarray:
    """Grey values of 16-bit integers, or of floats in 0..1 or 0..255, to uint8 (H, W)."""
    values = np.nan_to_num(grey.astype(np.float64))
    if np.issubdtype(grey.dtype, np.floating):
        factor = 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
    else:
        factor = 255.0 / 65535.0
    return np.clip(np.rint(values * factor), 0, 255).astype(np.uint8)
