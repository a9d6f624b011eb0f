"""How steady the labels of a video are."""

from __future__ import annotations

import numpy as np


class Flicker:
    """Counts, frame by frame, pixels that change their label while the truth does not.

    Attributes:
        compared: pixels whose truth is the same as in the frame before.
        changed: those of them whose label is another one than in the frame before.
        pixels: pixels with a truth.
        right: those of them whose label is the truth.
    """

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.compared = self.changed = self.pixels = self.right = 0
        self._before: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, labels: np.ndarray, truth: np.ndarray, ignore_label: int = 255) -> None:
        """Count a frame; both integer (H, W)."""
        counts = truth != ignore_label
        self.pixels += int(counts.sum())
        self.right += int((counts & (labels == truth)).sum())
        if self._before is not None:
            labels_before, truth_before = self._before
            still = counts & (truth == truth_before)
            self.compared += int(still.sum())
            self.changed += int((still & (labels != labels_before)).sum())
        self._before = labels.copy(), truth.copy()

    def start_over(self) -> None:
        """The next frame has nothing to do with the one before."""
        self._before = None

    @property
    def flicker(self) -> float:
        """The share of pixels that change, 0..1."""
        return self.changed / max(self.compared, 1)

    @property
    def accuracy(self) -> float:
        """The share of pixels that are right, 0..1."""
        return self.right / max(self.pixels, 1)
