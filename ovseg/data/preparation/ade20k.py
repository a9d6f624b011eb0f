"""ADE20K with 150 classes: ``ade20k_sem_seg_*``, which detectron2 registers."""

from __future__ import annotations

from pathlib import Path

from ovseg.data.datasets import dataset_classes
from ovseg.data.preparation.labels import label_table
from ovseg.data.preparation.png_label_maps import find_label_maps, plan_label_maps
from ovseg.data.preparation.runner import Job
from ovseg.data.splits import find_split

_ADE = "ADEChallengeData2016.zip, http://sceneparsing.csail.mit.edu/"


def plan(root: Path, split: str) -> list[Job]:
    """Jobs for ``annotations``: 1..150 are the classes, 0 is ignored.

    Args:
        root: folder of data sets.
        split: ``"train"`` or ``"val"``.

    Raises:
        UserError: the folder of label maps is missing or empty.
    """
    target = find_split(f"ade20k_sem_seg_{split}")
    folder = root / "ADEChallengeData2016" / "annotations" / Path(target.labels).name
    sources = find_label_maps(folder, root / target.images, _ADE)
    labels = {label + 1: label for label in range(len(dataset_classes([target.name])))}
    table = label_table(labels, 256, target.ignore_label, ignored=[0])
    return plan_label_maps(sources, root / target.images, root / target.labels, table)
