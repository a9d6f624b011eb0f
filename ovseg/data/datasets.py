"""Every data set that OVSeg trains and is evaluated on: one table, registered in detectron2.

Importing this module registers the table. ``$DETECTRON2_DATASETS`` (default ``datasets``) is read
then, as detectron2 does for its own data sets; files are looked at only when a data set is asked
for. The classes of ADE20K-150 are detectron2's own, and its files are paired by name like all.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ovseg.data.class_lists import ClassList, load_class_list
from ovseg.errors import UserError

logger = logging.getLogger(__name__)

_REPOSITORY = Path(__file__).resolve().parents[2]


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


def _stickerscenes(split: str, num_classes: int | None = None) -> Split:
    return Split(
        name=f"stickerscenes_{split}",
        images=f"stickerscenes/images/{split}",
        labels=f"stickerscenes/annotations/{split}",
        instances=f"stickerscenes/instances/{split}",
        vocabulary="stickerscenes",
        num_classes=num_classes,
        image_ext="png",
        hint="make it with: python datasets/prepare_stickerscenes.py",
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
    instances="instances",
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

    The dataset dicts have ``file_name``, ``sem_seg_file_name`` and, of a split with instance maps,
    ``instance_file_name``. Metadata: ``stuff_classes``,
    ``ignore_label``, ``image_root``, ``sem_seg_root``, ``evaluator_type`` and ``class_groups``
    (group name -> labels; empty where the classes have none).
    """
    instances = Path(root, split.instances) if split.instances else None
    files = _Files(split, Path(root, split.images), Path(root, split.labels), instances)
    classes = split.classes()
    DatasetCatalog.register(split.name, files)
    MetadataCatalog.get(split.name).set(
        stuff_classes=list(classes.names),
        ignore_label=split.ignore_label,
        image_root=str(files.images),
        sem_seg_root=str(files.labels),
        evaluator_type="sem_seg",
        class_groups={group: list(members) for group, members in classes.groups.items()},
    )


@dataclass(frozen=True)
class _Files:
    """The files of a split; calling it gives the dataset dicts, as detectron2's catalogue wants."""

    split: Split
    images: Path
    labels: Path
    instances: Path | None = None

    def __call__(self, unpaired: bool = False) -> list[dict[str, Any]]:
        """Dicts in the order of the names; see :func:`load_dataset`."""
        split = self.split
        images = self._stems(self.images, split.image_ext)
        labels = self._stems(self.labels, split.label_ext)
        stems = images & labels
        if not stems:
            raise UserError(
                f"data set {split.name}: no file in {self.labels} has the name of one in "
                f"{self.images}; {self._hint()}"
            )
        lacking = labels - images if split.images_shared else labels ^ images
        if unpaired:
            stems |= lacking
        elif lacking:
            logger.warning(
                "data set %s: %d files have no counterpart and are left out, %s first; %s",
                split.name, len(lacking), min(lacking), self._hint(),
            )  # fmt: skip
        return [
            {
                "file_name": str(self.images / f"{stem}.{split.image_ext}"),
                "sem_seg_file_name": str(self.labels / f"{stem}.{split.label_ext}"),
                **self._instance_map(stem),
            }
            for stem in sorted(stems)
        ]

    def _instance_map(self, stem: str) -> dict[str, str]:
        if self.instances is None:
            return {}
        return {"instance_file_name": str(self.instances / f"{stem}.{self.split.label_ext}")}

    def _stems(self, folder: Path, extension: str) -> set[str]:
        if not folder.is_dir():
            raise UserError(
                f"data set {self.split.name}: folder {folder} is missing; {self._hint()}"
            )
        ending = f".{extension}"
        stems = {name.removesuffix(ending) for name in os.listdir(folder) if name.endswith(ending)}
        if not stems:
            raise UserError(
                f"data set {self.split.name}: no {ending} files in {folder}; {self._hint()}"
            )
        return stems

    def _hint(self) -> str:
        split = self.split
        return split.hint or (
            f"it needs {split.images}/*.{split.image_ext} and {split.labels}/*.{split.label_ext} "
            "in the folder that DETECTRON2_DATASETS names"
        )


# what stands in for detectron2's own way to find the files of a data set, by which it pairs them by
# their order where there are as many images as label maps
_PAIRED_BY_NAME: dict[Any, _Files] = {}


def load_dataset(name: str, unpaired: bool = False) -> list[dict[str, Any]]:
    """The dataset dicts of a registered data set, detectron2's own included.

    Args:
        name: as in ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        unpaired: give images without a label map and label maps without an image too, so that who
            reads them learns which file is missing. Evaluations do, since otherwise they would be
            of a smaller data set. Else they are left out, with a warning.

    Raises:
        UserError: the name is not registered, or its files are missing.
    """
    if name not in DatasetCatalog.list():
        close = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see ovseg/data/datasets.py"
        raise UserError(f"data set {name!r} is not registered; {hint}")
    try:
        source = DatasetCatalog[name]
        source = _PAIRED_BY_NAME.get(source, source)
        return source(unpaired) if isinstance(source, _Files) else source()
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
    for split in ADE20K:
        files = (data_root() / split.images, data_root() / split.labels)
        _PAIRED_BY_NAME[DatasetCatalog[split.name]] = _Files(split, *files)
    for split in SPLITS:
        register_split(split, data_root())
    register_split(FROZEN, _REPOSITORY / "tests" / "data" / "stickerscenes")


_register_all()
