"""ADE20K with 150 classes: ``ade20k_sem_seg_*``, which detectron2 registers."""

from __future__ import annotations

from pathlib import Path

from detectron2.data import MetadataCatalog

from ovseg.data.preparation.labels import label_table, unknown_label
from ovseg.data.preparation.plain import find_label_maps, plan_label_maps
from ovseg.data.preparation.runner import Job

_ADE = "ADEChallengeData2016.zip, http://sceneparsing.csail.mit.edu/"
_FOLDERS = {"train": "training", "val": "validation"}


def plan(root: Path, split: str) -> list[Job]:
    """Jobs for ``annotations``: 1..150 are the classes, 0 is ignored.

    Args:
        root: folder of data sets.
        split: ``"train"`` or ``"val"``.

    Raises:
        UserError: the folder of label maps is missing or empty.
    """
    metadata = MetadataCatalog.get(f"ade20k_sem_seg_{split}")
    ade, name = root / "ADEChallengeData2016", _FOLDERS[split]
    images = ade / "images" / name
    sources = find_label_maps(ade / "annotations" / name, images, _ADE)
    ignore = int(metadata.ignore_label)
    labels = {label + 1: label for label in range(len(metadata.stuff_classes))}
    table = label_table({**labels, 0: ignore}, 256, ignore, unknown_label(ignore))
    return plan_label_maps(sources, images, ade / "annotations_detectron2" / name, table)
