"""Pascal VOC 2012 with its 20 classes: ``pascalvoc20_sem_seg_*``."""

from __future__ import annotations

from pathlib import Path

from ovseg.data.preparation.files import read_ids, require
from ovseg.data.preparation.labels import label_table
from ovseg.data.preparation.png_label_maps import plan_label_maps
from ovseg.data.preparation.runner import Job
from ovseg.data.splits import find_split

_VOC = "the VOC2012 archive, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
_AUG = "SegmentationClassAug.zip, see datasets/README.md"


def plan(root: Path, split: str) -> list[Job]:
    """Jobs for ``SegmentationClassAug``: 1..20 are the classes, 0 and 255 are ignored.

    Args:
        root: folder of data sets.
        split: ``"train"`` or ``"val"``.

    Raises:
        UserError: the list of images or the folder of label maps is missing.
    """
    target = find_split(f"pascalvoc20_sem_seg_{split}")
    voc = root / "VOCdevkit" / "VOC2012"
    ids = read_ids(voc / "ImageSets" / "Segmentation" / f"{split}.txt", _VOC)
    sources = require(voc / "SegmentationClassAug", _AUG)
    labels = {label + 1: label for label in range(len(target.classes()))}
    table = label_table(labels, 256, target.ignore_label, ignored=[0, 255])
    return plan_label_maps(
        (sources / f"{name}.png" for name in ids),
        root / target.images,
        root / target.labels,
        table,
    )
