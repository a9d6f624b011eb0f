"""Masks as polygons."""

from __future__ import annotations

import numpy as np


def polygons(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of the parts of a mask, one polygon a part.

    A hole is joined to the outline around it by a line that is walked there and back, since formats
    of polygons know no holes. Drawn with their border (``cv2.fillPoly``), all polygons of a mask
    give the mask again.

    Args:
        mask: bool (H, W).

    Returns:
        int32 (P, 2) for each part: x and y of its corners, in pixels. Parts of less than three
        corners, which are straight lines of pixels, are left out.
    """
    import cv2

    outlines, nesting = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    found = []
    for index, outline in enumerate(outlines):
        if nesting[0][index][3] >= 0 or len(outline) < 3:  # a hole, or a line
            continue
        polygon = outline[:, 0]
        hole = nesting[0][index][2]
        while hole >= 0:
            polygon = _joined(polygon, outlines[hole][:, 0])
            hole = nesting[0][hole][0]
        found.append(polygon.astype(np.int32))
    return found


def _joined(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One polygon of an outline and a hole in it, joined where they are nearest; both (P, 2)."""
    # a row at a time: outlines of large images have thousands of corners
    nearest = [((outline - corner) ** 2).sum(axis=1) for corner in hole.astype(np.int64)]
    inner = int(np.argmin([distances.min() for distances in nearest]))
    outer = int(nearest[inner].argmin())
    around = np.roll(hole, -inner, axis=0)
    return np.concatenate([outline[: outer + 1], around, around[:1], outline[outer:]])
