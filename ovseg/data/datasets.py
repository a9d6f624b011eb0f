"""Every data set that OVSeg trains and is evaluated on: one table, registered in detectron2.

Importing this module registers the table. ``$DETECTRON2_DATASETS`` (default ``datasets``) is read
then, as detectron2 does for its own data sets, ``ade20k_sem_seg_val`` among them; files are looked
at only when a data set is asked for.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_sem_seg

from ovseg.data.vocabulary import Vocabulary, load_vocabulary
from ovseg.errors import UserError

_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Split:
    """One registered data set: a folder of images and one of label maps of the same names.

    Attributes:
        name: as in ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        images, labels: folders under the root.
        vocabulary: class list, see :func:`ovseg.data.vocabulary.load_vocabulary`.
        num_classes: the first so many classes of it; None for all.
        ignore_label: label of pixels that count nowhere.
        image_ext, label_ext: endings of the files.
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
    hint: str = ""

    def classes(self) -> Vocabulary:
        """The classes that its labels stand for."""
        vocabulary = load_vocabulary(self.vocabulary)
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
    )


def _stickerscenes(split: str, num_classes: int | None = None) -> Split:
    return Split(
        name=f"stickerscenes_{split}",
        images=f"stickerscenes/images/{split}",
        labels=f"stickerscenes/annotations/{split}",
        vocabulary="stickerscenes",
        num_classes=num_classes,
        image_ext="png",
        hint="make it with: python datasets/prepare_stickerscenes.py",
    )


#: ade20k_sem_seg_train and ade20k_sem_seg_val are registered by detectron2
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
    _stickerscenes("dev"),
    _stickerscenes("test"),
    _stickerscenes("test_style"),
)

#: a small sample of the StickerScenes, part of the repository
FROZEN = Split(
    "stickerscenes_frozen",
    "images",
    "annotations",
    "stickerscenes",
    image_ext="jpg",
    hint="it is part of the repository; run from a complete checkout",
)


def find_split(name: str) -> Split:
    """The row of the table for the data set ``name``.

    Raises:
        KeyError: there is none.
    """
    return {split.name: split for split in SPLITS}[name]


def register_split(split: Split, root: str | os.PathLike[str]) -> None:
    """Register ``split``, its files under ``root``, in detectron2's catalogues.

    The dataset dicts have ``file_name`` and ``sem_seg_file_name``. Metadata: ``stuff_classes``,
    ``ignore_label``, ``image_root``, ``sem_seg_root``, ``evaluator_type`` and ``class_groups``
    (group name -> labels; empty where the classes have none).
    """
    images, labels = Path(root, split.images), Path(root, split.labels)
    classes = split.classes()
    DatasetCatalog.register(split.name, lambda: _load(split, images, labels))
    MetadataCatalog.get(split.name).set(
        stuff_classes=list(classes.names),
        ignore_label=split.ignore_label,
        image_root=str(images),
        sem_seg_root=str(labels),
        evaluator_type="sem_seg",
        class_groups={group: list(members) for group, members in classes.groups.items()},
    )


def _load(split: Split, images: Path, labels: Path) -> list[dict[str, Any]]:
    hint = split.hint or (
        f"it needs {split.images}/*.{split.image_ext} and {split.labels}/*.{split.label_ext} "
        "in the folder that DETECTRON2_DATASETS names"
    )
    for folder, extension in ((images, split.image_ext), (labels, split.label_ext)):
        if not folder.is_dir():
            raise UserError(f"data set {split.name}: folder {folder} is missing; {hint}")
        if not any(name.endswith(extension) for name in os.listdir(folder)):
            raise UserError(f"data set {split.name}: no .{extension} files in {folder}; {hint}")
    pairs = load_sem_seg(str(labels), str(images), split.label_ext, split.image_ext)
    if not pairs:
        raise UserError(
            f"data set {split.name}: no file in {labels} has the name of one in {images}; {hint}"
        )
    for pair in pairs:  # with as many files in both folders load_sem_seg does not compare names
        if Path(pair["file_name"]).stem != Path(pair["sem_seg_file_name"]).stem:
            raise UserError(
                f"data set {split.name}: {pair['file_name']} and {pair['sem_seg_file_name']} have "
                "different names; remove what has no counterpart, or add that"
            )
    return pairs


def load_dataset(name: str) -> list[dict[str, Any]]:
    """The dataset dicts of a registered data set, detectron2's own included.

    Raises:
        UserError: the name is not registered, or its files are missing.
    """
    if name not in DatasetCatalog.list():
        close = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see ovseg/data/datasets.py"
        raise UserError(f"data set {name!r} is not registered; {hint}")
    try:
        return DatasetCatalog.get(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"data set {name}: {error.filename} is missing; set DETECTRON2_DATASETS to the folder "
            "that holds your data sets"
        ) from error
    except AssertionError as error:
        raise UserError(f"data set {name}: {error}") from error


def dataset_classes(names: Iterable[str]) -> list[str]:
    """The class names that all the data sets ``names`` share, in label order.

    Raises:
        UserError: a data set has no list of classes, or the lists differ.
    """
    lists: dict[str, list[str]] = {}
    for name in names:
        classes = MetadataCatalog.get(name).get("stuff_classes")
        if not classes:
            raise UserError(f"data set {name!r} has no class names; it is not one for segmentation")
        lists[name] = [text.strip() for text in classes]
    if not lists:
        raise UserError("no data set is given; name at least one")
    first, *others = lists
    for other in others:
        if lists[other] != lists[first]:
            raise UserError(
                f"data sets {first} and {other} have different classes and cannot be mixed; "
                "use one at a time"
            )
    return lists[first]


def data_root() -> Path:
    """``$DETECTRON2_DATASETS``, or ``datasets`` in the working folder."""
    return Path(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS") or "datasets"))


def _register_all() -> None:
    for split in SPLITS:
        register_split(split, data_root())
    register_split(FROZEN, _REPOSITORY / "tests" / "data" / "stickerscenes")


_register_all()
