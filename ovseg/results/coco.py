"""COCO's form of predictions: masks with classes and scores as an instances file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ovseg.errors import UserError
from ovseg.results import outlines


def coco_content(
    found: Iterable[tuple[int, np.ndarray, float]],
    class_names: Sequence[str],
    size: Sequence[int],
    file_name: str | os.PathLike[str],
    image_id: int,
    polygons: bool,
) -> dict[str, Any]:
    """The content of a COCO instances file: ``images``, ``categories``, ``annotations``.

    Args:
        found: label, mask, bool (H, W), and score of everything that was found. Category ids are
            labels + 1.
        class_names: of the labels.
        size: height and width of the image.
        file_name, image_id: of the image.
        polygons: outlines in place of run-length encodings, see
            :func:`ovseg.results.outlines.edge_polygons`.
    """
    height, width = size
    annotations: list[dict[str, Any]] = []
    for label, mask, score in found:
        code = run_lengths(mask)
        corners = outlines.edge_polygons(mask) if polygons else []
        outline = [polygon.ravel().astype(float).tolist() for polygon in corners]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": label + 1,
                "segmentation": outline or code,
                "area": int(mask.sum()),
                "bbox": box_of(code),
                "iscrowd": 0,
                "score": round(score, 6),
            }
        )
    return {
        "images": [
            {"id": image_id, "file_name": os.fspath(file_name), "width": width, "height": height}
        ],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(class_names)],
        "annotations": annotations,
    }


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a mask, bool (H, W), ready for JSON.

    Raises:
        UserError: pycocotools is not installed, as beside exported models.
    """
    try:
        from pycocotools import mask as coco_mask
    except ModuleNotFoundError as error:
        raise UserError("COCO's masks need pycocotools: pip install pycocotools") from error
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def box_of(code: dict[str, Any]) -> list[float]:
    """Left, top, width and height, in pixels, of a run-length encoded mask."""
    from pycocotools import mask as coco_mask

    return [float(value) for value in coco_mask.toBbox(code)]


def merged(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """All images of several instances files with the same categories, numbered anew from 1."""
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
