"""How well a score tells pixels that belong to no given class from those that belong to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovseg.evaluation.confusion import (
    NO_CLASS,
    group_miou,
    new_confusion,
    scores,
    update_confusion,
)


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the receiver operating characteristic.

    It is the probability that a random positive has a larger score than a random negative, a tie
    counting half.

    Args:
        positive, negative: (P,) and (N,), scores; larger ones should be those of positives.

    Returns:
        0..1; NaN without a positive or a negative.
    """
    if not (positive.size and negative.size):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left").sum(dtype=np.float64)
    not_above = np.searchsorted(ordered, positive, side="right").sum(dtype=np.float64)
    return float((below + not_above) / 2 / positive.size / negative.size)


def threshold_of_recall(positive: np.ndarray, recall: float) -> float:
    """The largest score that so large a share of the positives reaches.

    Args:
        positive: (P,), at least one.
        recall: above 0, at most 1.
    """
    count = max(int(np.ceil(recall * positive.size - 1e-9)), 1)
    return float(np.partition(positive, positive.size - count)[positive.size - count])


def false_positive_rate(positive: np.ndarray, negative: np.ndarray, recall: float = 0.95) -> float:
    """The share of negatives that are taken for positives where ``recall`` of those are found.

    Args:
        positive, negative: see :func:`auroc`.
        recall: above 0, at most 1.

    Returns:
        0..1; NaN without a positive or a negative.
    """
    if not (positive.size and negative.size):
        return float("nan")
    return float((negative >= threshold_of_recall(positive, recall)).mean())


@dataclass(frozen=True)
class ScoredPixels:
    """Pixels of given and of hidden classes, and what a model says of them.

    Attributes:
        none: float (P,); how much speaks for none of the given classes.
        labels: int (P,); the best of the C given classes, 0..C-1.
        truth: int (P,); the true class, C for the hidden ones.
        count: C.
    """

    none: np.ndarray
    labels: np.ndarray
    truth: np.ndarray
    count: int

    @property
    def hidden(self) -> np.ndarray:
        """``none`` at pixels of hidden classes."""
        return self.none[self.truth == self.count]

    @property
    def known(self) -> np.ndarray:
        """``none`` at pixels of given classes."""
        return self.none[self.truth < self.count]

    def miou(self, threshold: float = np.inf) -> float:
        """The mean IoU of the given classes, 0..1, read as :attr:`Scores.miou`.

        Pixels have no class where ``none`` is ``threshold`` or more. Pixels of hidden classes that
        have one count as mistakes.
        """
        confusion = new_confusion(self.count + 1)
        labels = np.where(self.none >= threshold, NO_CLASS, self.labels)
        update_confusion(confusion, labels, self.truth, ignore_label=NO_CLASS)
        return group_miou(scores(confusion), {"given": range(self.count)})["given"]
