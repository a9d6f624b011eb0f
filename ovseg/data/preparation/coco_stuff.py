"""COCO-Stuff with its 171 classes: ``coco_2017_*_stuff_sem_seg``."""

from __future__ import annotations

from pathlib import Path

from ovseg.data.preparation.labels import label_table
from ovseg.data.preparation.png_label_maps import find_label_maps, plan_label_maps
from ovseg.data.preparation.runner import Job
from ovseg.data.splits import find_split

_STUFF = "stuffthingmaps_trainval2017.zip, https://github.com/nightrome/cocostuff"


def plan(root: Path, split: str) -> list[Job]:
    """Jobs for ``stuffthingmaps``: a pixel holds its category id - 1, 255 is ignored.

    Args:
        root: folder of data sets.
        split: ``"train"`` or ``"val"``.

    Raises:
        UserError: the folder of label maps is missing or empty.
    """
    target = find_split(f"coco_2017_{split}_stuff_sem_seg")
    folder = root / "coco" / "stuffthingmaps" / f"{split}2017"
    sources = find_label_maps(folder, root / target.images, _STUFF)
    labels = {number - 1: label for label, number in enumerate(target.classes().source_ids)}
    table = label_table(labels, 256, target.ignore_label, ignored=[255])
    return plan_label_maps(sources, root / target.images, root / target.labels, table)
