"""Masks with classes and scores in the formats of other packages: COCO, supervision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovseg.errors import UserError

if TYPE_CHECKING:
    import supervision


def coco_content(
    found: Iterable[tuple[int, np.ndarray, float]],
    class_names: Sequence[str],
    size: Sequence[int],
    file_name: str,
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
        polygons: outlines in place of run-length encodings. They leave holes out, and regions of
            less than three corners.
    """
    height, width = size
    annotations: list[dict[str, Any]] = []
    for label, mask, score in found:
        code = run_lengths(mask)
        outlines = _polygons(mask) if polygons else []
        if polygons and not outlines:
            continue
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": label + 1,
                "segmentation": outlines or code,
                "area": int(mask.sum()),
                "bbox": box_of(code),
                "iscrowd": 0,
                "score": round(score, 6),
            }
        )
    return {
        "images": [{"id": image_id, "file_name": file_name, "width": width, "height": height}],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(class_names)],
        "annotations": annotations,
    }


def detections(
    masks: np.ndarray, labels: Sequence[int], scores: Sequence[float], class_names: Sequence[str]
) -> supervision.Detections:
    """Masks as ``supervision.Detections``.

    Args:
        masks: bool (N, H, W), none of them empty.
        labels, scores: of each mask.
        class_names: of the labels.

    Raises:
        UserError: the package supervision is not installed.
    """
    try:
        from supervision import Detections
    except ImportError as error:
        raise UserError(
            "to_supervision() needs the package supervision: pip install supervision"
        ) from error
    boxes = [
        (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        for rows, columns in (np.nonzero(mask) for mask in masks)
    ]
    return Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        mask=masks,
        confidence=np.array(scores, np.float32),
        class_id=np.array(labels, int),
        data={"class_name": np.array([class_names[label] for label in labels], str)},
    )


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a mask, bool (H, W), ready for JSON."""
    from pycocotools import mask as coco_mask

    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def box_of(code: dict[str, Any]) -> list[float]:
    """Left, top, width and height, in pixels, of a run-length encoded mask."""
    from pycocotools import mask as coco_mask

    return [float(value) for value in coco_mask.toBbox(code)]


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Outlines of the parts of a mask (H, W): x, y, x, y, ... of their corners, in pixels."""
    import cv2

    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    return [outline.flatten().astype(float).tolist() for outline in outlines if len(outline) > 2]
