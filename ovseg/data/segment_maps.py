"""Ground truth of panoptic and instance segmentation, and which classes are things.

A data set has it as instance maps beside its label maps (0 for stuff, k for object number k of the
image, whose class is that of the label map), or as COCO panoptic files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog

from ovseg.data.datasets import dataset_classes, load_dataset
from ovseg.data.label_maps import read_labels, read_segment_ids, read_truth
from ovseg.errors import UserError


@dataclass(frozen=True)
class TrueSegments:
    """The segments of one image. They do not overlap, and stuff is one segment a class.

    Attributes:
        ids: int32 (H, W); the segment of every pixel, 0 for those that count nowhere.
        labels: the class of every segment.
        crowds: the segments that stand for many objects each.
    """

    ids: np.ndarray
    labels: Mapping[int, int]
    crowds: frozenset[int] = frozenset()


def read_segments(
    example: Mapping[str, Any], things: Iterable[int], ignore_label: int
) -> TrueSegments:
    """The true segments of a dataset dict.

    Args:
        example: with ``sem_seg_file_name``, and ``instance_file_name`` or, of a COCO panoptic data
            set, ``segments``, the class of each segment's id, and ``crowds``, some of these ids.
        things: the classes that are things. Their pixels without an object count nowhere.
        ignore_label: label of pixels that count nowhere.

    Raises:
        UserError: a file is missing or broken, or two of them differ in size.
    """
    if "segments" in example:
        return _of_panoptic(example, ignore_label)
    labels = read_truth(example).astype(np.int64)
    objects = read_labels(example["instance_file_name"]).astype(np.int64)
    if objects.shape != labels.shape:
        raise UserError(
            f"instance map {example['instance_file_name']} is {objects.shape[1]} x "
            f"{objects.shape[0]} pixels, its label map {labels.shape[1]} x {labels.shape[0]}; "
            "prepare the data set again"
        )
    of_thing = np.isin(labels, list(things))
    # a number for every class and object; negative for what counts nowhere
    count = int(objects.max(initial=0)) + 1
    codes = labels * count + np.where(of_thing, objects, 0)
    codes[(labels == ignore_label) | (of_thing & (objects == 0))] = -1
    found, places = np.unique(codes, return_inverse=True)
    first = 1 - int((found < 0).any())
    return TrueSegments(
        (places + first).reshape(codes.shape).astype(np.int32),
        {place + first: int(code) // count for place, code in enumerate(found) if code >= 0},
    )


def _of_panoptic(example: Mapping[str, Any], ignore_label: int) -> TrueSegments:
    ids = read_segment_ids(example)
    present = set(np.unique(ids).tolist())
    labels = {
        number: label
        for number, label in example["segments"].items()
        if number in present and label != ignore_label
    }
    ids = np.where(np.isin(ids, list(labels)), ids, 0)
    return TrueSegments(ids, labels, frozenset(example["crowds"]) & set(labels))


def thing_classes(name: str) -> list[str]:
    """The classes of a registered data set that are things, in label order.

    Its metadata say so: ``thing_classes``, where there is ``thing_dataset_id_to_contiguous_id``
    those of its numbers, as detectron2's panoptic data sets have them; or ``class_groups`` with a
    group "stuff", of which all others are things. Without any of these all classes are.
    """
    metadata = MetadataCatalog.get(name)
    classes = dataset_classes([name])
    things = metadata.get("thing_classes")
    if things is None:
        stuff = metadata.get("class_groups", {}).get("stuff", ())
        return [text for label, text in enumerate(classes) if label not in stuff]
    numbers = metadata.get("thing_dataset_id_to_contiguous_id")
    named = {things[number].strip() for number in (numbers or {}).values()} or {
        text.strip() for text in things
    }
    return [text for text in classes if text in named]


def check_segment_truth(names: Iterable[str]) -> None:
    """Find out before any work whether data sets have ground truth of segments.

    Raises:
        UserError: names the data set that has none, and the way out.
    """
    keys = "MODEL.MASK_FORMER.TEST.PANOPTIC_ON and INSTANCE_ON"
    for name in names:
        example = load_dataset(name)[0]
        if "segments" in example:
            continue
        if "instance_file_name" not in example:
            raise UserError(f"data set {name} has no instance maps; set {keys} to False")
        if not Path(example["instance_file_name"]).is_file():
            raise UserError(
                f"data set {name}: instance map {example['instance_file_name']} is missing; "
                f"prepare the data set again, or set {keys} to False"
            )
