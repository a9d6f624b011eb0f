"""Label maps of large images, gone through without copies of their size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BAND = 1 << 22  # pixels that are looked at together


def row_bands(labels: np.ndarray) -> Iterator[slice]:
    """The rows of a map (H, W), some at a time.

    NumPy counts and looks up in copies of two and four times the labels' size.
    """
    rows = max(1, _BAND // max(1, labels.shape[1]))
    for first in range(0, len(labels), rows):
        yield slice(first, first + rows)


def count_labels(labels: np.ndarray, classes: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Of every class its pixels, or with ``weights`` the sum of these.

    Args:
        labels: integer (H, W), below ``classes``; negative where there is no class.
        classes: C, their number.
        weights: (H, W).

    Returns:
        (C,), int64, or with ``weights`` float64.
    """
    sums = np.zeros(classes, np.int64 if weights is None else np.float64)
    for rows in row_bands(labels):
        band = labels[rows]
        found = band >= 0
        of_band = None if weights is None else weights[rows][found]
        sums += np.bincount(band[found], of_band, minlength=classes)
    return sums
