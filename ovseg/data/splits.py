"""The table of the data sets that OVSeg trains and is evaluated on, and where they are.

It names folders and class lists and registers nothing, so it needs no detectron2;
:mod:`ovseg.data.datasets` registers it there.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.data.class_lists import ClassList, load_class_list
from ovseg.errors import UserError


@dataclass(frozen=True)
class Split:
    """One registered data set: a folder of images and one of label maps of the same names.

    Attributes:
        name: as in ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        images, labels: folders under the root.
        vocabulary: class list, see :func:`ovseg.data.class_lists.load_class_list`.
        num_classes: the first so many classes of it; None for all.
        ignore_label: label of pixels that count nowhere.
        image_ext, label_ext: endings of the files.
        images_shared: the images without a label map belong to other splits.
        instances: folder of instance maps under the root, named as the label maps; "" for none.
        hint: how to get the files; "" to describe the folders.
    """

    name: str
    images: str
    labels: str
    vocabulary: str
    num_classes: int | None = None
    ignore_label: int = 255
    image_ext: str = "jpg"
    label_ext: str = "png"
    images_shared: bool = False
    instances: str = ""
    hint: str = ""

    def classes(self) -> ClassList:
        """The classes that its labels stand for."""
        vocabulary = load_class_list(self.vocabulary)
        return vocabulary if self.num_classes is None else vocabulary.first(self.num_classes)


def _prepared(script: str, **columns: Any) -> Split:
    """A split whose label maps ``datasets/<script>`` writes."""
    return Split(hint=f"unpack it as datasets/README.md says, then: python {script}", **columns)


def _coco(split: str) -> Split:
    return _prepared(
        "datasets/prepare_coco_stuff_sem_seg.py",
        name=f"coco_2017_{split}_stuff_sem_seg",
        images=f"coco/{split}2017",
        labels=f"coco/stuffthingmaps_detectron2/{split}2017",
        vocabulary="coco_stuff_171",
    )


def _ade20k(split: str, folder: str) -> Split:
    root = "ADEChallengeData2016"
    return _prepared(
        "datasets/prepare_ade20k_sem_seg.py",
        name=f"ade20k_sem_seg_{split}",
        images=f"{root}/images/{folder}",
        labels=f"{root}/annotations_detectron2/{folder}",
        vocabulary="",
    )


def _ade20k_full(split: str, folder: str) -> Split:
    root = "ADE20K_2021_17_01"
    return _prepared(
        "datasets/prepare_ade20k_full_sem_seg.py",
        name=f"ade20k_full_sem_seg_{split}",
        images=f"{root}/images_detectron2/{folder}",
        labels=f"{root}/annotations_detectron2/{folder}",
        vocabulary="ade20k_full_847",
        ignore_label=65535,
        label_ext="tif",
    )


def _pascal_context(classes: int, split: str, ignore_label: int, label_ext: str) -> Split:
    root = "VOCdevkit/VOC2010"
    return _prepared(
        "datasets/prepare_pascal_context.py",
        name=f"pascal_context_{classes}_sem_seg_{split}",
        images=f"{root}/JPEGImages",
        labels=f"{root}/annotations_detectron2/pc{classes}_{split}",
        vocabulary=f"pascal_context_{classes}",
        images_shared=True,
        ignore_label=ignore_label,
        label_ext=label_ext,
    )


def _pascal_voc(split: str) -> Split:
    root = "VOCdevkit/VOC2012"
    return _prepared(
        "datasets/prepare_voc_sem_seg.py",
        name=f"pascalvoc20_sem_seg_{split}",
        images=f"{root}/JPEGImages",
        labels=f"{root}/annotations_detectron2/{split}",
        vocabulary="pascal_voc_20",
        images_shared=True,
    )


def _stickerscenes(split: str, num_classes: int | None = None, only: str = "") -> Split:
    return Split(
        name=f"stickerscenes_{split}",
        images=f"stickerscenes/images/{split}",
        labels=f"stickerscenes/annotations/{split}",
        instances=f"stickerscenes/instances/{split}",
        vocabulary="stickerscenes",
        num_classes=num_classes,
        image_ext="png",
        hint=f"make it with: python datasets/prepare_stickerscenes.py{only}",
    )


#: registered by detectron2, whose class list and metadata are used
ADE20K = (_ade20k("train", "training"), _ade20k("val", "validation"))

SPLITS: tuple[Split, ...] = (
    _coco("train"),
    _coco("val"),
    _ade20k_full("train", "training"),
    _ade20k_full("val", "validation"),
    _pascal_context(59, "train", 255, "png"),
    _pascal_context(59, "val", 255, "png"),
    _pascal_context(459, "train", 65535, "tif"),
    _pascal_context(459, "val", 65535, "tif"),
    _pascal_voc("train"),
    _pascal_voc("val"),
    # labels 0..143 are what training sees (objects, then stuff); 144.. are the unseen objects
    _stickerscenes("train", num_classes=144),
    _stickerscenes("more", num_classes=144, only=" --only more"),
    _stickerscenes("train_all", only=" --only train_all"),
    _stickerscenes("dev"),
    _stickerscenes("test"),
    _stickerscenes("test_style"),
)

# the names that detectron2 0.6 gives to data sets of its own; ADE20K-150 is in the table
_OF_DETECTRON2 = re.compile(
    r"(keypoints_)?coco_20\d\d_(train|val|test|test-dev|minival|valminusminival)(_100)?"
    r"(_panoptic(_separated|_stuffonly)?)?"
    r"|lvis_v[\w.]+|voc_20\d\d_\w+|cityscapes_fine_\w+"
)

#: a small sample of the StickerScenes, part of the repository
FROZEN = Split(
    "stickerscenes_frozen",
    "images",
    "annotations",
    "stickerscenes",
    image_ext="jpg",
    instances="instances",
    hint="it is part of the repository; run from a complete checkout",
)


def find_split(name: str) -> Split:
    """The row of the table for the data set ``name``.

    Raises:
        KeyError: there is none.
    """
    return {split.name: split for split in (*ADE20K, *SPLITS)}[name]


def data_root() -> Path:
    """``$DETECTRON2_DATASETS``, or ``datasets`` in the working folder."""
    return Path(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS") or "datasets"))


def unknown_dataset(name: str, known: Iterable[str]) -> UserError:
    """The error of a data set that is not registered; ``known`` are those that are."""
    close = difflib.get_close_matches(name, list(known), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see ovseg/data/splits.py"
    return UserError(f"data set {name!r} is not registered; {hint}")


def check_dataset_names(names: Iterable[str]) -> None:
    """Refuse names that neither OVSeg nor detectron2 registers, before detectron2 is imported.

    Raises:
        UserError: names the data set, and those that are called alike.
    """
    known = [split.name for split in (*SPLITS, *ADE20K, FROZEN)]
    for name in names:
        if name not in known and not _OF_DETECTRON2.fullmatch(name):
            raise unknown_dataset(name, known)
