"""Registering data sets of the user's own in detectron2's catalogues."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ovseg.data.class_lists import ClassList
from ovseg.data.datasets import DatasetFiles, dataset_classes, register_files
from ovseg.errors import UserError
from ovseg.utils.io import user_path
from ovseg.vocabulary import Vocabulary

from .coco_instances import read_instances
from .coco_panoptic import panoptic_examples, read_categories
from .colours import ColourMap
from .description import Description, read_description
from .image_files import LabelFiles, files_by_stem, images_by_stem
from .label_values import ValueMap
from .labelled import labelled_examples
from .yolo import YoloPolygons

logger = logging.getLogger(__name__)


def register_custom(files: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Register the data sets that yaml files describe; anew those that are registered already.

    Must be called in every process that asks for them.

    Returns:
        Their names, in order.

    Raises:
        UserError: a file is missing, is no such description, or its name is another data set's.
    """
    return [_register(user_path(file)) for file in files]


def dataset_vocabulary(name: str) -> Vocabulary:
    """The classes of a data set, with the synonyms of one's own data sets."""
    words, names = MetadataCatalog.get(name).get("class_words"), tuple(dataset_classes([name]))
    return Vocabulary.of(names) if words is None else Vocabulary(names, words)


def _register(file: Path) -> str:
    description = read_description(file)
    name = description.name
    _forget(file, name)
    register_files(
        name,
        OwnFiles(description),
        ClassList(description.names),
        description.ignore_label,
    )
    MetadataCatalog.get(name).set(
        custom_file=str(file.resolve()),
        class_words=description.words,
    )
    if description.panoptic is not None:
        categories = zip(read_categories(description.panoptic), description.names, strict=True)
        MetadataCatalog.get(name).set(
            thing_classes=[shown for category, shown in categories if category["isthing"]]
        )
    return name


def _forget(file: Path, name: str) -> None:
    if name not in DatasetCatalog.list():
        return
    if MetadataCatalog.get(name).get("custom_file") != str(file.resolve()):
        raise UserError(f"{file}: name {name!r} is another data set's; choose another name")
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@dataclass(frozen=True, eq=False)  # hashed by what it is
class OwnFiles(DatasetFiles):
    """The files of a data set of the user's own; calling it gives the dataset dicts."""

    description: Description

    def __call__(self, unpaired: bool = False) -> list[dict[str, Any]]:
        """Dicts in the order of the names, or of the list of images."""
        description = self.description
        described_in = str(description.file)
        try:
            examples = self._examples()
        except UserError as error:
            raise UserError(f"data set {description.name}: {error}") from error
        there = [example for example in examples if os.path.exists(example["file_name"])]
        if not there:
            missing = examples[0]["file_name"] if examples else "every image"
            raise UserError(
                f"data set {description.name}: {missing} is missing, and all others with it; "
                f"{description.images.hint}"
            )
        lacking = len(examples) - len(there)
        if lacking and not unpaired:
            logger.warning(
                "data set %s: %d of %d images are missing %s and are left out; %s",
                description.name, lacking, len(examples), description.images.told,
                description.images.hint,
            )  # fmt: skip
            examples = there
        return [{**example, "described_in": described_in} for example in examples]

    def _examples(self) -> list[dict[str, Any]]:
        description = self.description
        match description.form:
            case "images":
                return [{"file_name": str(path)} for path in description.images.paths()]
            case "coco_json":
                assert description.truth is not None
                return read_instances(description.truth).examples(
                    description.images, description.label_of, description.ignore_label,
                    description.background, description.strict, str(description.file),
                )  # fmt: skip
            case "panoptic_json":
                assert description.truth is not None
                assert description.panoptic is not None
                return panoptic_examples(
                    description.panoptic, description.images.source, description.truth,
                    description.ignore_label, str(description.file),
                )  # fmt: skip
            case "yolo":
                return self._yolo()
            case "labelled":
                assert description.truth is not None
                return labelled_examples(
                    description.truth, description.min_score, description.ignore_label,
                    str(description.file),
                )  # fmt: skip
            case _:
                return self._label_maps()

    def _label_maps(self) -> list[dict[str, Any]]:
        description = self.description
        assert description.truth is not None
        labels = LabelFiles(description.truth, description.label_ext, description.label_suffix)
        pairs = labels.pairs(description.images)
        if description.form == "classes":
            return [
                {"file_name": str(image), "sem_seg_file_name": str(path)} for image, path in pairs
            ]
        kind = ColourMap if description.form == "colors" else ValueMap
        return [
            {
                "file_name": str(image),
                "truth": kind(
                    path=str(path),
                    described_in=str(description.file),
                    ignore_label=description.ignore_label,
                    strict=description.strict,
                    label_of=description.label_of,
                ),
            }
            for image, path in pairs
        ]

    def _yolo(self) -> list[dict[str, Any]]:
        description = self.description
        assert description.truth is not None
        hint = f"correct images, image_ext or yolo in {description.file}"
        images = images_by_stem(description.images)
        suffix = description.label_suffix
        files = files_by_stem(description.truth, "txt", hint, suffix)
        if not images.keys() & files.keys():
            raise UserError(
                f"no file in {description.truth} has the name of one {description.images.told}; "
                f"{hint}"
            )
        return [
            {
                "file_name": str(image),
                "truth": YoloPolygons(
                    path=str(files.get(stem, description.truth / f"{stem}{suffix}.txt")),
                    described_in=str(description.file),
                    ignore_label=description.ignore_label,
                    strict=description.strict,
                    image=str(image),
                    label_of=description.label_of,
                    background=description.background,
                    complete=description.names_all,
                ),
            }
            for stem, image in images.items()
        ]
