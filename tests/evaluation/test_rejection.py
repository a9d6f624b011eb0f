"""Figures of rejection against counting pairs, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ovseg.evaluation.rejection import (
    ScoredPixels,
    auroc,
    false_positive_rate,
    threshold_of_recall,
)

NONE = np.zeros(0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steps", [3, 40, None])
def test_auroc_is_the_share_of_pairs_in_order(seed: int, steps: int | None) -> None:
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(0.5, 1, 57), rng.normal(0, 1, 83)
    if steps:  # ties
        positive, negative = (np.round(x * steps / 6) for x in (positive, negative))
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(negative, positive) == pytest.approx(1 - sum(pairs) / len(pairs))
    for recall in (0.5, 0.95, 1.0):
        # the strictest of all thresholds that finds enough
        rates = [
            np.mean(negative >= threshold)
            for threshold in np.unique(positive)
            if np.mean(positive >= threshold) >= recall
        ]
        assert false_positive_rate(positive, negative, recall) == pytest.approx(min(rates))


def test_extremes_by_hand() -> None:
    low, high = np.array([0.1, 0.2]), np.array([0.3, 0.4, 0.5])
    assert auroc(high, low) == 1
    assert auroc(low, high) == 0
    assert auroc(low, low) == 0.5
    assert false_positive_rate(high, low) == 0
    assert false_positive_rate(low, high) == 1
    assert threshold_of_recall(high, 1) == 0.3
    assert threshold_of_recall(high, 0.5) == 0.4
    assert threshold_of_recall(high, 0.01) == 0.5
    for empty in ((NONE, low), (low, NONE)):
        assert math.isnan(auroc(*empty))
        assert math.isnan(false_positive_rate(*empty))


def test_single_precision_scores_of_many_pixels_are_counted_exactly() -> None:
    # more pairs than a float32 has whole numbers
    positive, negative = np.ones(9000, np.float32), np.zeros(9000, np.float32)
    negative[0] = 2
    assert auroc(positive, negative) == pytest.approx(1 - 1 / 9000, abs=1e-12)


def test_mean_iou_of_given_classes_by_hand() -> None:
    # two given classes, hidden pixels at the end
    pixels = ScoredPixels(
        none=np.array([0.1, 0.2, 0.7, 0.1, 0.9, 0.3]),
        labels=np.array([0, 0, 1, 1, 1, 0]),
        truth=np.array([0, 0, 1, 1, 2, 2]),
        count=2,
    )
    assert pixels.hidden.tolist() == [0.9, 0.3]
    assert pixels.known.tolist() == [0.1, 0.2, 0.7, 0.1]
    # each class has two right and a hidden pixel too much
    assert pixels.miou() == pytest.approx(2 / 3)
    # a hidden pixel is rejected
    assert pixels.miou(0.8) == pytest.approx((2 / 3 + 1) / 2)
    # and at 0.7 a known one of the second class
    assert pixels.miou(0.7) == pytest.approx((2 / 3 + 1 / 2) / 2)
