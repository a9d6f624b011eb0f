"""The ground truth of a dataset dict as a label map, whatever form it is stored in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovseg.errors import UserError
from ovseg.utils.images import is_turned, open_image, why_unreadable

#: endings of files that lose what is written into them
LOSSY = frozenset({"jpg", "jpeg", "jpe", "jfif", "webp", "jp2", "avif", "heic", "heif"})


class UnreadableTruth(UserError):
    """A file of ground truth is missing or broken, as single files of many can be."""


class ColouredLabels(UserError):
    """An image with several channels stands where a label map is wanted."""


def read_truth(example: Mapping[str, Any]) -> np.ndarray:
    """The label map of a dataset dict.

    Args:
        example: with ``sem_seg_file_name``, a label map; or with ``truth``, a
            :class:`ovseg.data.own.truth.Truth`. Of a COCO panoptic data set with
            ``sem_seg_file_name``, the label of each segment's id as ``segments``, and
            ``ignore_label`` for pixels of no segment.

    Returns:
        (H, W) of uint8, uint16 or int32.

    Raises:
        UserError: there is none, a file is missing or broken, has the wrong number of channels, or
            a segment that is not listed.
    """
    try:
        return _truth(example)
    except UnreadableTruth as error:
        raise UnreadableTruth(f"{error}; {way_out(example)}") from error


def _truth(example: Mapping[str, Any]) -> np.ndarray:
    if "truth" in example:
        decoded: np.ndarray = example["truth"].read()
        return decoded
    if "sem_seg_file_name" not in example:
        raise UserError(f"{example['file_name']} has no ground truth; {way_out(example)}")
    if "segments" not in example:
        return read_labels(example["sem_seg_file_name"])
    segments = read_segment_ids(example)
    ids, places = np.unique(segments, return_inverse=True)
    label_of = {0: example["ignore_label"], **example["segments"]}
    table = np.array([label_of[segment] for segment in ids.tolist()], np.int32)
    return table[places].reshape(segments.shape)


def read_segment_ids(example: Mapping[str, Any]) -> np.ndarray:
    """The ids of the segments of a COCO panoptic data set's image, 0 for none: int32 (H, W).

    Args:
        example: with ``sem_seg_file_name``, whose colours are ids, and ``segments``.

    Raises:
        UserError: the file is missing or broken, has no colours, or a segment that is not listed.
    """
    path = example["sem_seg_file_name"]
    colours = _read(path)
    if colours.ndim != 3 or colours.shape[2] < 3:
        raise UserError(f"panoptic map {path} has no colours; it needs red, green and blue")
    red, green, blue = np.moveaxis(colours[:, :, :3].astype(np.int32), -1, 0)
    ids = red + 256 * green + 65536 * blue
    for segment in np.unique(ids).tolist():
        if segment and segment not in example["segments"]:
            raise UserError(f"panoptic map {path}: segment {segment} is not in its json; add it")
    return ids


def matching_truth(example: Mapping[str, Any], size: Sequence[int]) -> np.ndarray:
    """The label map (H, W) of a dataset dict whose image has ``size`` H, W.

    Raises:
        UserError: it is missing, broken or of another size.
    """
    truth = read_truth(example)
    check_fit(example, truth, size)
    return truth


def check_fit(
    example: Mapping[str, Any], truth: np.ndarray, size: Sequence[int], image: str = "its image"
) -> None:
    """Refuse a label map (H, W) of another size than its image, which the message calls ``image``.

    Raises:
        UserError: it is; says so where the image is one that its file says to turn.
    """
    if truth.shape == tuple(size):
        return
    turned = ""
    if truth.shape == tuple(reversed(size)) and is_turned(example["file_name"]):
        turned = ", since its EXIF data say to turn it: turn the label map too, or"
    raise UserError(
        f"{truth_place(example)} is {truth.shape[1]} x {truth.shape[0]} pixels, {image} "
        f"{size[1]} x {size[0]}{turned or ';'} {way_out(example)}"
    )


def truth_place(example: Mapping[str, Any]) -> str:
    """What the ground truth of a dataset dict is called in a message."""
    if "truth" in example:
        return str(example["truth"].place)
    return f"label map {example.get('sem_seg_file_name')}"


def way_out(example: Mapping[str, Any]) -> str:
    """What can be done about ground truth that does not fit, for the end of a message.

    Dataset dicts of one's own data sets have ``described_in``, their yaml file.
    """
    if "described_in" in example:
        return f"correct it, or what {example['described_in']} says of it"
    return "prepare the data set again"


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a label map: grey or palette PNG/TIFF of 8 or 16 bit.

    Returns:
        (H, W) of uint8, uint16 or int32: the stored values (palette indices, not colours).

    Raises:
        UserError: the file is missing or broken, has lossy compression, several channels, or no
            whole numbers.
    """
    labels = _read(path)
    if labels.ndim != 2:
        raise ColouredLabels(
            f"label map {os.fspath(path)} has {labels.shape[-1]} channels; it needs one, whose "
            "values are class labels (the colours of one's own colour masks are named by the key "
            "colors in place of classes)"
        )
    if labels.dtype.kind not in "biu":
        raise UserError(
            f"label map {os.fspath(path)} holds numbers of type {labels.dtype}; "
            "write whole numbers of 8 or 16 bit"
        )
    return labels.astype(np.uint8) if labels.dtype == bool else labels


def read_colours(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a colour mask of any mode, those of a palette included: uint8 (H, W, 3), RGB.

    Raises:
        UserError: the file is missing or broken, or has lossy compression.
    """
    return _read(path, mode="RGB")


def _read(path: str | os.PathLike[str], mode: str | None = None) -> np.ndarray:
    try:
        with open_image(path) as file:
            lossy = file.format if str(file.format).lower() in LOSSY else None
            if str(file.info.get("compression")).lower() in {"jpeg", "tiff_jpeg", "webp"}:
                lossy = f"{file.format} with {file.info['compression']} compression"
            pixels = np.asarray(file if mode is None else file.convert(mode))
    except FileNotFoundError as error:
        raise UnreadableTruth(f"label map {os.fspath(path)} is missing") from error
    except (OSError, SyntaxError, ValueError) as error:
        reason = why_unreadable(error, path)
        raise UnreadableTruth(f"label map {os.fspath(path)} cannot be read ({reason})") from error
    if lossy:
        raise UserError(
            f"label map {os.fspath(path)} is {lossy}, which changes labels; write PNG or TIFF "
            "without loss"
        )
    return pixels
