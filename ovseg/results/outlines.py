"""Masks as polygons: through the pixels' centres, or along their edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def polygons(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of the parts of a mask, one polygon a part, through the centres of its pixels.

    A hole is joined to the outline around it by a line that is walked there and back, since formats
    of polygons know no holes. Drawn with their border (``cv2.fillPoly``, as readers of YOLO's form
    do), all polygons of a mask give the mask again.

    Args:
        mask: bool (H, W).

    Returns:
        int32 (P, 2) for each part: x and y of its corners, in pixels. Parts of less than three
        corners, which are straight lines of pixels, are left out.
    """
    return [polygon for polygon in _outlines(mask, _same) if len(polygon) >= 3]


def edge_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """The same along the edges of the pixels, where COCO's polygons run: decoded by pycocotools
    they give the mask again.

    Args:
        mask: bool (H, W).

    Returns:
        int32 (P, 2) for each part, 0..W and 0..H.
    """
    return _outlines(np.kron(mask, np.ones((2, 2), bool)), _corners)


def _outlines(mask: np.ndarray, corners: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    import cv2

    outlines, nesting = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    found = []
    for index, outline in enumerate(outlines):
        if nesting[0][index][3] >= 0:  # a hole
            continue
        polygon = corners(outline[:, 0])
        hole = nesting[0][index][2]
        while hole >= 0:
            polygon = _joined(polygon, corners(outlines[hole][:, 0]))
            hole = nesting[0][hole][0]
        found.append(polygon.astype(np.int32))
    return found


def _same(outline: np.ndarray) -> np.ndarray:
    return outline


def _corners(outline: np.ndarray) -> np.ndarray:
    """Corners (P, 2) between pixels, of an outline (N, 2) in a mask of twice the size."""
    between = (outline.astype(np.int64) + 1) // 2
    between = between[(between != np.roll(between, 1, axis=0)).any(axis=1)]
    before, after = between - np.roll(between, 1, axis=0), np.roll(between, -1, axis=0) - between
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    back = (before * after).sum(axis=1) < 0
    return between[turns | back]


def _joined(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One polygon of an outline and a hole in it, joined where they are nearest; both (P, 2)."""
    # a row at a time: outlines of large images have thousands of corners
    nearest = [((outline - corner) ** 2).sum(axis=1) for corner in hole.astype(np.int64)]
    inner = int(np.argmin([distances.min() for distances in nearest]))
    outer = int(nearest[inner].argmin())
    around = np.roll(hole, -inner, axis=0)
    return np.concatenate([outline[: outer + 1], around, around[:1], outline[outer:]])
