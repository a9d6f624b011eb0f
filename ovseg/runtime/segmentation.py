"""From classified masks to a segmentation: ``sum_q p[q, c] * mask[q]``, in NumPy.

As in :mod:`ovseg.modeling.segmentation` the masks are resized and never the class maps, band of
rows by band of rows, and for labels most classes are ruled out before any sum is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ovseg.runtime.best_class import SIDE, Tiles, best_classes, scores_of
from ovseg.runtime.resize import bilinear, bilinear_columns, bilinear_rows

# elements of the largest intermediate array; 2^22 floats are 16 MB
_TILE = 2**22


def image_masks(logits: np.ndarray, size: tuple[int, int], padded: tuple[int, int]) -> np.ndarray:
    """Mask probabilities float32 (Q, H, W) of an image.

    Args:
        logits: float32 (Q, h, w), of the padded image.
        size: H, W of the image without its padding, which is at the right and bottom.
        padded: height and width with it.
    """
    masks = np.empty((len(logits), *size), np.float32)
    for mask, each in zip(masks, logits, strict=True):  # one at a time stays in the cache
        mask[:] = bilinear(each[None], padded)[0, : size[0], : size[1]]
    np.negative(masks, out=masks)
    with np.errstate(over="ignore"):  # of exp(-logit): the probability is 0 then
        np.exp(masks, out=masks)
    masks += 1
    return np.reciprocal(masks, out=masks)


def word_score_bands(
    class_probs: np.ndarray, masks: np.ndarray, size: tuple[int, int]
) -> Iterator[tuple[slice, np.ndarray]]:
    """Scores of all that compete, band of rows by band of rows.

    Args:
        class_probs: float32 (K, W).
        masks: float32 (K, h, w).
        size: height and width of the output in pixels.

    Yields:
        The rows of a band and its scores (W, rows, width).
    """
    height, width = size
    count, words = class_probs.shape
    rows = max(1, _TILE // (max(width, masks.shape[2]) * max(words, count, 1)))
    weights = np.ascontiguousarray(class_probs.T, np.float32)
    for first in range(0, height, rows):
        last = min(first + rows, height)
        if not count:
            yield slice(first, last), np.zeros((words, last - first, width), np.float32)
            continue
        band = bilinear_columns(bilinear_rows(masks, height, first, last), width)
        scores = weights @ band.reshape(count, -1)
        yield slice(first, last), scores.reshape(words, last - first, width)


def label_map(
    class_probs: np.ndarray, masks: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The best of those that compete at every pixel, and its score.

    Returns:
        Labels int64 (height, width), -1 where nothing scores above 0, and scores float32
        (height, width).
    """
    labels, best = np.full(size, -1, np.int64), np.zeros(size, np.float32)
    height, width = size
    count, classes = class_probs.shape
    if not count:
        return labels, best
    class_probs = np.ascontiguousarray(class_probs, np.float32)
    rows = max(1, _TILE // (max(width, masks.shape[2]) * max(count, classes) * SIDE)) * SIDE
    for first in range(0, height, rows):
        band = slice(first, min(first + rows, height))
        resized = bilinear_rows(masks, height, band.start, band.stop)
        tiles = Tiles.cut(bilinear_columns(resized, width))
        found = best_classes(class_probs, tiles)
        labels[band] = tiles.join(found)
        best[band] = tiles.join(scores_of(found, class_probs, tiles))
    return labels, best
