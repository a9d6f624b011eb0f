"""Reading label maps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovseg.errors import UserError
from ovseg.utils.images import open_image


def read_truth(example: Mapping[str, Any]) -> np.ndarray:
    """The label map of a dataset dict.

    Args:
        example: with ``sem_seg_file_name``. Of a COCO panoptic data set also ``segments``, the
            label of each segment's id, and ``ignore_label`` for pixels of no segment.

    Returns:
        (H, W) of uint8, uint16 or int32.

    Raises:
        UserError: the file is missing or broken, has the wrong number of channels, or a segment
            that is not listed.
    """
    if "segments" not in example:
        return read_labels(example["sem_seg_file_name"])
    segments = read_segment_ids(example)
    ids, places = np.unique(segments, return_inverse=True)
    labels = {0: example["ignore_label"], **example["segments"]}
    table = np.array([labels[segment] for segment in ids.tolist()], np.int32)
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


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a label map: grey or palette PNG/TIFF of 8 or 16 bit.

    Returns:
        (H, W) of uint8, uint16 or int32: the stored values (palette indices, not colours).

    Raises:
        UserError: the file is missing or broken, or has several channels or no whole numbers.
    """
    labels = _read(path)
    if labels.ndim != 2:
        raise UserError(
            f"label map {os.fspath(path)} has {labels.shape[-1]} channels; "
            "it needs one, whose values are class labels"
        )
    if labels.dtype.kind not in "biu":
        raise UserError(
            f"label map {os.fspath(path)} holds numbers of type {labels.dtype}; "
            "write whole numbers of 8 or 16 bit"
        )
    return labels.astype(np.uint8) if labels.dtype == bool else labels


def _read(path: str | os.PathLike[str]) -> np.ndarray:
    try:
        with open_image(path) as file:
            return np.asarray(file)
    except FileNotFoundError as error:
        raise UserError(
            f"label map {os.fspath(path)} is missing; prepare the data set again"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"label map {os.fspath(path)} cannot be read ({error}); prepare it again"
        ) from error
