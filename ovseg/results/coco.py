"""One COCO instances file of those of several pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def merged(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """All pictures of several instances files with the same categories, numbered anew from 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: list[dict[str, Any]] = []
    for part in parts:
        categories = categories or part["categories"]
        ids = {}
        for image in part["images"]:
            ids[image["id"]] = len(images) + 1
            images.append({**image, "id": ids[image["id"]]})
        for annotation in part["annotations"]:
            place = {"id": len(annotations) + 1, "image_id": ids[annotation["image_id"]]}
            annotations.append({**annotation, **place})
    return {"images": images, "categories": categories, "annotations": annotations}
