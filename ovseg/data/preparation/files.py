"""Reading the archives' files and writing ours; a broken one is an error that names it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from PIL import Image

from ovseg.data.preparation.labels import relabel
from ovseg.errors import UserError
from ovseg.utils import image_files
from ovseg.utils.io import atomic_path

logger = logging.getLogger(__name__)
JPEG_QUALITY = 95
_EXIF_ORIENTATION = 274
_JPEG_END = b"\xff\xd9"
# a label map is runs of one value: without filters it is written faster, and is smaller too
_PNG_OPTIONS = (
    (
        *(cv2.IMWRITE_PNG_COMPRESSION, 1),
        *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
        *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
    )
    if hasattr(cv2, "IMWRITE_PNG_FILTER")  # OpenCV 4.8 has not
    else ()
)


class BrokenFileError(UserError):
    """One file cannot be used; the others can."""


def read_pixels(path: Path, mode: str | None = None) -> np.ndarray:
    """Decode the whole file of an image or of a label map.

    Args:
        mode: Pillow's name of the wanted kind, ``"RGB"``; None: values as they are stored, palette
            indices among them.

    Returns:
        (H, W) or (H, W, channels), mostly uint8.

    Raises:
        BrokenFileError: the file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as file:
            return np.asarray(file if mode in (None, file.mode) else file.convert(mode))
    except Exception as error:  # decoders raise nearly anything on a broken file
        raise _broken(path, error) from error


def read_raw_labels(path: Path) -> np.ndarray:
    """Decode a grey or palette label map: (H, W), the stored values.

    Raises:
        BrokenFileError: as :func:`read_pixels`; or there are several channels.
    """
    labels = read_pixels(path)
    if labels.ndim != 2:
        raise BrokenFileError(
            f"{path}: {labels.shape[-1]} channels where one was expected; unpack the archive again"
        )
    return labels.astype(np.uint8) if labels.dtype == bool else labels


def read_label_mat(path: Path) -> np.ndarray:
    """The array ``LabelMap`` of a MATLAB file, uint16 (H, W).

    Raises:
        BrokenFileError: the file is missing, broken or lacks that array, or the array is no map of
            whole numbers from 0 to 65535.
    """
    try:
        labels = np.asarray(scipy.io.loadmat(path, variable_names=["LabelMap"])["LabelMap"])
    except KeyError as error:
        raise BrokenFileError(f"{path}: it holds no LabelMap; unpack the archive again") from error
    except Exception as error:
        raise _broken(path, error) from error
    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "buif":
        raise BrokenFileError(
            f"{path}: LabelMap is {labels.dtype} of shape {labels.shape}, no map of numbers; "
            "unpack the archive again"
        )
    with np.errstate(invalid="ignore"):
        whole = labels.astype(np.uint16, order="C", copy=False)
    if labels.dtype != np.uint16 and (wrong := labels[whole != labels]).size:
        raise BrokenFileError(
            f"{path}: value {wrong[0]} is no whole number from 0 to 65535; unpack the archive again"
        )
    return whole


def require(path: Path, source: str) -> Path:
    """``path``, a file or folder without which nothing can be prepared.

    Args:
        source: where it comes from.

    Raises:
        UserError: it is not there.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; it comes from {source}")
    return path


def read_list(path: Path, source: str) -> str:
    """The text of a list; arguments and errors as :func:`require`.

    Raises:
        UserError: it is not there or not UTF-8.
    """
    try:
        return require(path, source).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is no UTF-8 text ({error}); take it again from {source}"
        ) from error


def read_ids(path: Path, source: str) -> list[str]:
    """The image ids of a split, one a line; arguments and errors as :func:`read_list`."""
    ids = read_list(path, source).split()
    if not ids:
        raise UserError(f"{path} lists no image; take it again from {source}")
    return ids


def has_images(folder: Path) -> bool:
    """Whether the folder of images is there; label maps can be prepared before it is."""
    if not folder.is_dir():
        logger.warning("%s is missing: label maps are not compared with their images", folder)
    return folder.is_dir()


def check_image(path: Path, labels: Path, shape: tuple[int, ...]) -> None:
    """See that the image of a label map is there, whole, and of the same size.

    A JPEG is whole when its last two bytes say so; any other file is decoded to find out.

    Args:
        path: the image.
        labels: the label map's file, for the message.
        shape: (height, width) of the label map.

    Raises:
        BrokenFileError: it is missing, truncated, no image, or of another size.
    """
    try:
        with path.open("rb") as stream, Image.open(stream) as picture:
            width, height = picture.size
            after_header = stream.tell()
            stream.seek(-len(_JPEG_END), os.SEEK_END)
            if picture.format != "JPEG" or stream.read() != _JPEG_END:
                stream.seek(after_header)
                picture.load()
    except Exception as error:
        raise _broken(path, error) from error
    check_same_size(labels, shape, path, (height, width))


def check_same_size(
    labels: Path, label_shape: tuple[int, ...], image: Path, image_shape: tuple[int, ...]
) -> None:
    """Raise :class:`BrokenFileError` when the (height, width) of a label map and image differ."""
    if tuple(label_shape[:2]) != tuple(image_shape[:2]):
        raise BrokenFileError(
            f"{labels}: {label_shape[1]} x {label_shape[0]} pixels, its image {image} "
            f"{image_shape[1]} x {image_shape[0]}; unpack both again"
        )


def relabel_file(path: Path, raw: np.ndarray, table: np.ndarray) -> np.ndarray:
    """:func:`relabel`, its errors naming the file that ``raw`` comes from.

    Raises:
        BrokenFileError: a value has no class.
    """
    try:
        return relabel(raw, table)
    except ValueError as error:
        raise BrokenFileError(
            f"{path}: {error} is no class of this data set; unpack the archive again"
        ) from error


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write a label map, uint8 (H, W) as PNG or uint16 (H, W) as TIFF, whole or not at all."""
    # OpenCV's PNG is written twice as fast as Pillow's, and little larger
    image_files.write_image(path, labels, _PNG_OPTIONS if path.suffix == ".png" else ())


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, uint8 (H, W, 3) RGB, as JPEG of high quality, whole or not at all."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    image_files.write_image(path, bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))


def copy_image(source: Path, path: Path) -> None:
    """Copy an image file byte by byte, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(source.read_bytes())


def is_plain_jpeg(path: Path) -> bool:
    """Whether a JPEG shows the same in every reader: RGB, without a turn in its EXIF data."""
    with Image.open(path) as file:
        upright = file.getexif().get(_EXIF_ORIENTATION, 1) == 1
        return file.format == "JPEG" and file.mode == "RGB" and upright


def _broken(path: Path, error: Exception) -> BrokenFileError:
    if isinstance(error, FileNotFoundError):
        return BrokenFileError(f"{path} is missing; unpack the archive again")
    reason = " ".join(str(error).split()) or type(error).__name__
    return BrokenFileError(f"{path} cannot be read ({reason}); unpack the archive again")
