"""The data sets of :mod:`ovseg.data.splits`, registered in detectron2, and reading them.

Importing this module registers the table. ``$DETECTRON2_DATASETS`` (default ``datasets``) is read
then, as detectron2 does for its own data sets; files are looked at only when a data set is asked
for. The classes of ADE20K-150 are detectron2's own, and its files are paired by name like all.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ovseg.data.class_lists import ClassList
from ovseg.data.splits import ADE20K, FROZEN, SPLITS, Split, data_root, unknown_dataset
from ovseg.errors import UserError
from ovseg.utils.package_files import clone_folder

logger = logging.getLogger(__name__)


class DatasetFiles(ABC):
    """Gives the dataset dicts of a data set, as detectron2's catalogue wants."""

    @abstractmethod
    def __call__(self, unpaired: bool = False) -> list[dict[str, Any]]:
        """Dicts in a fixed order; see :func:`load_dataset`."""


def register_files(
    name: str, files: DatasetFiles, classes: ClassList, ignored: int, **metadata: Any
) -> None:
    """Register a data set in detectron2's catalogues.

    Metadata: ``stuff_classes``, ``ignore_label``, ``evaluator_type``, ``class_groups`` (group name
    -> labels; empty where the classes have none), and ``metadata``.
    """
    DatasetCatalog.register(name, files)
    MetadataCatalog.get(name).set(
        stuff_classes=list(classes.names),
        ignore_label=ignored,
        evaluator_type="sem_seg",
        class_groups={group: list(members) for group, members in classes.groups.items()},
        **metadata,
    )


def register_split(split: Split, root: str | os.PathLike[str]) -> None:
    """Register ``split``, its files under ``root``, in detectron2's catalogues.

    The dataset dicts have ``file_name``, ``sem_seg_file_name`` and, of a split with instance maps,
    ``instance_file_name``. Metadata are those of :func:`register_files`, ``image_root`` and
    ``sem_seg_root``.
    """
    instances = Path(root, split.instances) if split.instances else None
    files = _Files(split, Path(root, split.images), Path(root, split.labels), instances)
    roots = {"image_root": str(files.images), "sem_seg_root": str(files.labels)}
    register_files(split.name, files, split.classes(), split.ignore_label, **roots)


@dataclass(frozen=True)
class _Files(DatasetFiles):
    """The files of a split."""

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
        raise unknown_dataset(name, DatasetCatalog.list())
    try:
        source = DatasetCatalog[name]
        source = _PAIRED_BY_NAME.get(source, source)
        return source(unpaired) if isinstance(source, DatasetFiles) else source()
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


def ignore_label(name: str, default: int = 255) -> int:
    """The label of pixels that count nowhere in the registered data set ``name``.

    ``default`` is that of a data set, not one of ours, whose metadata do not say.
    """
    return int(MetadataCatalog.get(name).get("ignore_label", default))


def class_groups(name: str) -> dict[str, list[int]]:
    """Groups of classes that are scored together in ``name``: labels by group; {} for none."""
    groups = MetadataCatalog.get(name).get("class_groups") or {}
    return {group: list(labels) for group, labels in groups.items()}


def _register_all() -> None:
    for split in ADE20K:
        files = (data_root() / split.images, data_root() / split.labels)
        _PAIRED_BY_NAME[DatasetCatalog[split.name]] = _Files(split, *files)
    for split in SPLITS:
        register_split(split, data_root())
    clone = clone_folder()
    if clone is not None:
        register_split(FROZEN, clone / "tests" / "data" / "stickerscenes")


_register_all()
