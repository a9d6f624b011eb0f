"""ADE20K-Full with 847 classes: ``ade20k_full_sem_seg_*``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ovseg.data.preparation.files import (
    check_same_size,
    copy_image,
    is_plain_jpeg,
    read_pixels,
    relabel_file,
    require,
    write_image,
    write_labels,
)
from ovseg.data.preparation.labels import ade20k_object_ids, label_table, short_side_size
from ovseg.data.preparation.runner import Job
from ovseg.data.splits import find_split
from ovseg.errors import UserError
from ovseg.utils.pickles import ArrayUnpickler

_ADE = "ADE20K_2021_17_01.zip, https://groups.csail.mit.edu/vision/datasets/ADE20K/"
#: images with both sides longer are made smaller
SHORT_SIDE = 512
#: one more than the largest object index that red and green can code
_NUM_OBJECTS = 255 // 10 * 256 + 256


def plan(root: Path, split: str) -> list[Job]:
    """Jobs for the images that ``index_ade20k.pkl`` lists for a split.

    Args:
        root: folder of data sets.
        split: ``"train"`` or ``"val"``.

    Raises:
        UserError: the index is missing or broken, or lists no image of the split.
    """
    target = find_split(f"ade20k_full_sem_seg_{split}")
    path = require(root / "ADE20K_2021_17_01" / "index_ade20k.pkl", _ADE)
    sources = [
        root / folder / name
        for folder, name in _read_index(path)
        if (name.split("_")[1:2] == ["val"]) == (split == "val")
    ]
    if not sources:
        raise UserError(f"{path} lists no image of split {split}; unpack again {_ADE}")
    labels = {number: label for label, number in enumerate(target.classes().source_ids)}
    table = label_table(labels, _NUM_OBJECTS, target.ignore_label)
    images, annotations = root / target.images, root / target.labels
    jobs = []
    for source in sources:
        outputs = (images / f"{source.stem}.jpg", annotations / f"{source.stem}.tif")
        work = partial(convert, source, *outputs, table)
        jobs.append(Job(outputs, work))
    return jobs


def _read_index(path: Path) -> list[tuple[str, str]]:
    """(folder, file name) of every image."""
    try:
        with path.open("rb") as file:
            index: dict[str, Any] = ArrayUnpickler(file).load()
        pairs = zip(index["folder"], index["filename"], strict=True)
        return [(str(folder), str(name)) for folder, name in pairs]
    except Exception as error:  # unpickling raises nearly anything on a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); unpack again {_ADE}") from error


def convert(source: Path, image_output: Path, label_output: Path, table: np.ndarray) -> None:
    """Write one image, made smaller when both its sides are long, and its label map.

    Objects that are none of the classes are ignored.

    Raises:
        BrokenFileError: the image or its ``*_seg.png`` cannot be used.
    """
    segmentation_file = source.with_name(f"{source.stem}_seg.png")
    image = read_pixels(source, "RGB")
    segmentation = read_pixels(segmentation_file, "RGB")
    check_same_size(segmentation_file, segmentation.shape, source, image.shape)
    height, width = short_side_size(image.shape[0], image.shape[1], SHORT_SIDE)
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        segmentation = cv2.resize(segmentation, (width, height), interpolation=cv2.INTER_NEAREST)
        write_image(image_output, image)
    elif is_plain_jpeg(source):
        copy_image(source, image_output)
    else:
        write_image(image_output, image)
    objects = ade20k_object_ids(segmentation)
    write_labels(label_output, relabel_file(segmentation_file, objects, table))
