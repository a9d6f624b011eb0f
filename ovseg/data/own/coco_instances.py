"""COCO instances JSON: polygons and run-length encodings, turned into label maps in memory.

CVAT, Roboflow, Label Studio, labelme and others export it. Where annotations overlap the smaller
one, by its pixels, is on top. Pixels without an annotation are ignored, or are ``background``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.data.coco_masks import check_mask_size, decode_polygons, decode_rle, paint
from ovseg.errors import UserError
from ovseg.utils.io import read_json

from .image_files import ImageFiles
from .truth import Decoded, Truth, smallest_type

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoAnnotations(Truth):
    """The annotations of one image.

    Attributes:
        image: its name in the JSON file.
        size: height and width there.
        objects: label and COCO segmentation of each annotation; the label None where the category
            has no class.
        categories: the names of the categories without a class, of these objects in order.
        background: label of the pixels without an annotation.
    """

    image: str
    size: tuple[int, int]
    objects: tuple[tuple[int | None, Any], ...]
    categories: tuple[str, ...]
    background: int

    @property
    def place(self) -> str:
        return f"annotations of {self.image} in {self.path}"

    @property
    def key(self) -> str:
        return "values"

    def decode(self) -> Decoded:
        height, width = self.size
        masks = [self._mask(segmentation) for _, segmentation in self.objects]
        names = iter(self.categories)
        unnamed: dict[str, int] = {}
        painted = []
        for (label, _), mask in zip(self.objects, masks, strict=True):
            if label is None:
                name = f"category {next(names)}"
                unnamed[name] = unnamed.get(name, 0) + int(mask.sum())
            painted.append((self.ignore_label if label is None else label, mask))
        empty = np.full((height, width), self.background, smallest_type(self.ignore_label))
        return Decoded(paint(painted, empty), unnamed)

    def _mask(self, segmentation: Any) -> np.ndarray:
        height, width = self.size
        try:
            if isinstance(segmentation, dict):
                if list(segmentation.get("size", self.size)) != [height, width]:
                    raise ValueError(
                        f"a mask of size {segmentation['size']}, the image has "
                        f"{[height, width]} (height, width)"
                    )
                return decode_rle(segmentation, height, width)
            return decode_polygons(segmentation, height, width)
        except Exception as error:  # pycocotools raises nearly anything on odd content
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            raise UserError(
                f"{self.place}: {reason}; correct it there, or export the annotations again"
            ) from error


@dataclass(frozen=True)
class InstancesFile:
    """A COCO instances JSON file.

    Attributes:
        path: of the file.
        images: entries by their ids.
        annotations: entries that have a segmentation, in the file's order.
        categories: names by id, in the file's order; without those that only hold others.
    """

    path: Path
    images: Mapping[Any, Mapping[str, Any]]
    annotations: list[Mapping[str, Any]]
    categories: Mapping[int, str]

    def examples(
        self, files: ImageFiles, label_of: Mapping[int, int], ignore_label: int, background: int,
        strict: bool, described_in: str,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Dataset dicts of all its images, whether they are there or not.

        Raises:
            UserError: an annotation has no image or category.
        """
        objects: dict[Any, list[Mapping[str, Any]]] = {number: [] for number in self.images}
        for entry in self.annotations:
            for key, known in (("image_id", self.images), ("category_id", self.categories)):
                if entry[key] not in known:
                    raise UserError(
                        f"coco_json {self.path}: annotation {entry.get('id')} has {key} "
                        f"{entry[key]}, which is not in the file; export it again"
                    )
            objects[entry["image_id"]].append(entry)
        return [
            {
                "file_name": str(files.find(image["file_name"])),
                "truth": CocoAnnotations(
                    path=str(self.path),
                    described_in=described_in,
                    ignore_label=ignore_label,
                    strict=strict,
                    image=image["file_name"],
                    size=(int(image["height"]), int(image["width"])),
                    objects=tuple(
                        (label_of.get(entry["category_id"]), entry["segmentation"])
                        for entry in objects[number]
                    ),
                    categories=tuple(
                        f"{entry['category_id']} ({self.categories[entry['category_id']]})"
                        for entry in objects[number]
                        if entry["category_id"] not in label_of
                    ),
                    background=background,
                ),
            }
            for number, image in self.images.items()
        ]


def read_instances(path: Path) -> InstancesFile:
    """Read a COCO instances file.

    Raises:
        UserError: it is none; says what it is if that can be seen.
    """
    status = path.stat()
    return _read_once(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)  # a run asks for its data sets several times, and files can be large
def _read_once(path: Path, changed: int, size: int) -> InstancesFile:
    content = read_json(path, object, "give the COCO instances file of your annotation tool")
    found = describe_json(content)
    if found != COCO_INSTANCES:
        raise UserError(f"coco_json {path} is no COCO instances file but {found}")
    try:
        groups = _groups_of_categories(content)
        categories = {
            int(entry["id"]): str(entry["name"])
            for entry in content["categories"]
            if entry not in groups
        }
        for entry in content["images"]:
            check_mask_size(int(entry["height"]), int(entry["width"]))
            Path(entry["file_name"])
        images = {entry["id"]: entry for entry in content["images"]}
        marked = [entry for entry in content["annotations"] if _is_marked(entry)]
        for entry in marked:
            entry["image_id"], entry["category_id"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"coco_json {path} is no COCO instances file ({error!r}); export it again"
        ) from error
    if not categories:
        raise UserError(f"coco_json {path} has no categories, which are the classes; name them in "
                        "your annotation tool and export it again")  # fmt: skip
    if len(categories) < len(content["categories"]) - len(groups):
        raise UserError(f"coco_json {path}: two categories have one id; give each its own")
    if len(images) < len(content["images"]):
        raise UserError(f"coco_json {path}: two images have one id; give each its own")
    for entry in groups:
        logger.info("%s: category %s (%s) is a group of others, and no class", path, entry["id"],
                    entry["name"])  # fmt: skip
    boxes = len(content["annotations"]) - len(marked)
    if not marked and boxes:
        raise UserError(
            f"coco_json {path}: its {boxes} annotations are boxes without a segmentation; "
            "annotate polygons or masks"
        )
    if boxes:
        logger.warning("%s: %d annotations are boxes alone and are left out", path, boxes)
    return InstancesFile(path, images, marked, categories)


def _groups_of_categories(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Categories that others belong to, without annotations, as Roboflow writes one."""
    above = {entry.get("supercategory") for entry in content["categories"]}
    used = {entry.get("category_id") for entry in content["annotations"]}
    return [
        entry
        for entry in content["categories"]
        if entry.get("supercategory") == "none"
        and entry["name"] in above
        and entry["id"] not in used
    ]


def _is_marked(entry: Mapping[str, Any]) -> bool:
    segmentation = entry.get("segmentation")
    return isinstance(segmentation, dict) or any(segmentation or ())


COCO_INSTANCES = "a COCO instances file; the key that reads it is coco_json"


def describe_json(content: Any) -> str:
    """What the content of a JSON file is, and the key that reads it."""
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
        annotations = content["annotations"]
        first = annotations[0] if isinstance(annotations, list) and annotations else {}
        if "segments_info" in first:
            return (
                "a COCO panoptic file; the key that reads it is panoptic_json, with labels: the "
                "folder of its PNG files"
            )
        return COCO_INSTANCES
    if isinstance(content, dict) and "shapes" in content:
        return (
            "a labelme file of one image; export all as one COCO instances file, which the key "
            "coco_json reads"
        )
    if isinstance(content, list) and content and isinstance(content[0], dict):
        if {"annotations", "data"} & content[0].keys():
            return "Label Studio's own JSON; export it as COCO there, which the key coco_json reads"
        if "segmentation" in content[0]:
            return (
                "a list of masks, as proposals are; ground truth is a COCO instances file, which "
                "the key coco_json reads"
            )
    return "JSON of another kind; export COCO instances, which the key coco_json reads"
