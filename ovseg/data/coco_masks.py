"""Masks as COCO stores them, polygons or run-length encodings, read by pycocotools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ovseg.utils.images import MEGAPIXELS, max_megapixels


def check_mask_size(height: int, width: int) -> None:
    """Refuse sizes whose masks would fill the memory: those that images may not have either.

    Raises:
        ValueError: says so.
    """
    if not (height >= 0 and width >= 0 and height * width <= 1e6 * max_megapixels()):
        raise ValueError(
            f"a size of {width} x {height} pixels, more than images may have "
            f"({MEGAPIXELS} sets the limit)"
        )


def decode_rle(code: dict[str, Any], height: int, width: int) -> np.ndarray:
    """A run-length encoding as a mask, uint8 (H, W) of 0 and 1.

    Args:
        code: ``{"counts": ...}``, a list of run lengths or their compressed text.
        height, width: of the mask.

    Raises:
        ValueError: it is no code of a mask of this size.
    """
    counts = code["counts"]
    # what a code does not reach, pycocotools leaves as it finds it in memory
    too_short = ValueError(f"a code in it is none of a mask of {width} x {height}")
    if isinstance(counts, list):
        if any(not isinstance(run, int) or run < 0 for run in counts):
            raise ValueError("its run lengths are no whole numbers")
        if sum(counts) != height * width:
            raise too_short
        sized = {"size": [height, width], "counts": counts}
        return coco_mask.decode(coco_mask.frPyObjects(sized, height, width))
    # pycocotools reads and writes beyond its memory where a text ends too early or fills too much
    if sum(_run_lengths(counts)) != height * width:
        raise too_short
    mask = coco_mask.decode({"size": [height, width], "counts": counts})
    if coco_mask.encode(mask)["counts"] != counts.encode():
        raise too_short
    return mask


def _run_lengths(text: str) -> list[int]:
    """The run lengths in a compressed text.

    A character is six bits: five of a number, the lowest first, and whether more follow; the last
    bit of five is the sign. From the fourth on, a number is added to the run length before last.

    Raises:
        ValueError: a character is none of such a text, its last number is not whole, or a run
            length is below 0 or above 2^32.
    """
    wrong = ValueError("a code in it is no text of run lengths")
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise wrong
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if not 0 <= value < 2**32:
            raise wrong
        runs.append(value)
        value = shift = 0
    if shift:
        raise wrong
    return runs


def decode_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """The pixels inside any of some polygons: uint8 (H, W) of 0 and 1.

    What reaches over the edges of the image is cut off.

    Args:
        polygons: each ``[x0, y0, x1, y1, ...]``, in pixels.
        height, width: of the image.

    Raises:
        ValueError: a polygon has fewer than three points, or all its points are outside the image.
    """
    for polygon in polygons:
        points = np.asarray(polygon, np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise ValueError(f"a polygon of {points.size} numbers has no three points x, y")
        if not np.isfinite(points).all():
            raise ValueError("a polygon has a coordinate that is no finite number")
        x, y = points[::2], points[1::2]
        beside = x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height
        # far ones would also cost pycocotools memory by their length
        far = max(abs(x).max() - width, 0) > 10 * width or abs(y).max() - height > 10 * height
        if beside or far:
            raise ValueError(
                f"a polygon at x {x.min():g} to {x.max():g}, y {y.min():g} to {y.max():g} lies "
                f"outside the image of {width} x {height}"
            )
    codes = coco_mask.frPyObjects(
        [list(map(float, polygon)) for polygon in polygons], height, width
    )
    return coco_mask.decode(coco_mask.merge(codes))


def paint(objects: Iterable[tuple[int, np.ndarray]], background: np.ndarray) -> np.ndarray:
    """Lay objects over a label map, the larger ones first, so that the smaller are on top.

    Args:
        objects: label and mask (H, W) of each; of two of one size the later is on top.
        background: (H, W); painted over in place.

    Returns:
        ``background``.
    """
    masks = [(label, mask.astype(bool)) for label, mask in objects]
    for label, mask in sorted(masks, key=lambda entry: -int(entry[1].sum())):
        background[mask] = label
    return background
