"""COCO panoptic data sets: segment ids in the colours of PNG files, their categories in JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ovseg.errors import UserError
from ovseg.utils.io import read_json

from .coco_instances import COCO_INSTANCES, describe_json


def read_categories(panoptic: Path) -> list[dict[str, Any]]:
    """The categories, each with ``id``, ``name`` and ``isthing``, in the file's order.

    Raises:
        UserError: it is no COCO panoptic file.
    """
    content = _read(panoptic)
    if describe_json(content) == COCO_INSTANCES and content["annotations"]:
        raise UserError(f"panoptic_json {panoptic} is {COCO_INSTANCES}")
    try:
        categories: list[dict[str, Any]] = [
            {
                "id": int(item["id"]),
                "name": str(item["name"]),
                "isthing": bool(item.get("isthing", True)),
            }
            for item in content["categories"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"panoptic_json {panoptic} is no COCO panoptic file ({error!r}); give one whose "
            "categories have an id and a name"
        ) from error
    name_of: dict[int, str] = {}
    for item in categories:
        number, name = item["id"], item["name"]
        if number in name_of:
            raise UserError(
                f"panoptic_json {panoptic}: categories {name_of[number]!r} and {name!r} have one "
                f"id, {number}; give each its own"
            )
        name_of[number] = name
    return categories


def panoptic_examples(
    panoptic: Path, images: Path, labels: Path, ignore_label: int, described_in: str
) -> list[dict[str, Any]]:
    """Dataset dicts whose ``segments`` give the label of each colour, see ``read_truth``.

    ``crowds`` are the segments that stand for many objects each.

    Args:
        panoptic: the JSON file.
        images, labels: folders of JPEG and PNG files.
        ignore_label: label of pixels of no segment.
        described_in: the yaml file.

    Raises:
        UserError: the annotations cannot be used, or the first image is missing.
    """
    label_of = {item["id"]: label for label, item in enumerate(read_categories(panoptic))}
    try:
        examples: list[dict[str, Any]] = [
            {
                "file_name": str(Path(images, item["file_name"]).with_suffix(".jpg")),
                "sem_seg_file_name": str(Path(labels, item["file_name"])),
                "segments": {
                    int(entry["id"]): label_of[entry["category_id"]]
                    for entry in item["segments_info"]
                },
                "crowds": [
                    int(entry["id"]) for entry in item["segments_info"] if entry.get("iscrowd")
                ],
                "ignore_label": ignore_label,
            }
            for item in _read(panoptic)["annotations"]
        ]
    except KeyError as error:
        raise UserError(f"{panoptic} lacks {error}, an entry or a category; mend it") from error
    except (ValueError, TypeError) as error:
        raise UserError(
            f"the annotations of {panoptic} cannot be used ({error}); give those of a COCO "
            "panoptic file"
        ) from error
    if not examples:
        raise UserError(f"{panoptic} has no annotations; give another file")
    for key in ("file_name", "sem_seg_file_name"):
        if not Path(examples[0][key]).is_file():
            raise UserError(
                f"{examples[0][key]} is missing; correct images or labels in {described_in}"
            )
    return examples


def _read(panoptic: Path) -> Any:
    try:
        return read_json(panoptic, object)
    except UserError as error:
        raise UserError(
            f"panoptic_json {panoptic} is no COCO panoptic file ({error.__cause__}); give another"
        ) from error
