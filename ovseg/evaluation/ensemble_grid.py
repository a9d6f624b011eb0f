"""The ensemble's weight and mask threshold: a grid and its scores.

The scores are mIoU in percent. A point may be chosen on some data sets and reported on others, and
on one half of the images (every other one) and reported on the other half, so that nothing is
chosen on the images that it is reported on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovseg.errors import UserError
from ovseg.evaluation.confusion import scores
from ovseg.evaluation.report import Report

THRESHOLD_KEY = "MODEL.CLIP_ADAPTER.MASK_THR"
WEIGHT_KEY = "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT"
UNSEEN_KEY = "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN"


@dataclass(frozen=True)
class Grid:
    """Rows are thresholds, each with every weight of unseen classes; columns are weights.

    Attributes:
        thresholds, weights: ascending.
        unseen_weights: of classes that the segmentation network was not trained on, ascending;
            empty: the weights are those of all classes.
    """

    thresholds: tuple[float, ...]
    weights: tuple[float, ...]
    unseen_weights: tuple[float, ...] = ()

    @property
    def rows(self) -> list[tuple[float, float | None]]:
        """The threshold of each row, and the weight of unseen classes."""
        return [
            (threshold, unseen)
            for threshold in self.thresholds
            for unseen in self.unseen_weights or (None,)
        ]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows), len(self.weights)

    def settings(self, point: tuple[int, int]) -> dict[str, float]:
        """What a point is, by name."""
        threshold, unseen = self.rows[point[0]]
        found = {"threshold": threshold, "weight": self.weights[point[1]]}
        return found if unseen is None else {**found, "weight of unseen classes": unseen}

    def config(self, point: tuple[int, int]) -> list[str]:
        """The config lines of a point."""
        keys = (THRESHOLD_KEY, WEIGHT_KEY, UNSEEN_KEY)
        values = self.settings(point).values()
        return [f"{key} {value!r}" for key, value in zip(keys, values, strict=False)]


@dataclass(frozen=True)
class GridScores:
    """What a search found on one data set, or as the mean of several.

    Attributes:
        name: of the data set.
        choosing: float (T, W), percent, on the images that a point may be chosen on.
        reporting: the same on the images that it is reported on.
        details: what else ``search.json`` says of the data set.
    """

    name: str
    choosing: np.ndarray
    reporting: np.ndarray
    details: Mapping[str, Any]

    def best(self) -> tuple[int, int]:
        """The point with the best score on the choosing images; of equals the first."""
        row, column = np.unravel_index(int(np.argmax(self.choosing)), self.choosing.shape)
        return int(row), int(column)


def grid_scores(
    name: str,
    confusion: np.ndarray,
    class_names: Sequence[str],
    groups: Mapping[str, Sequence[int]],
    num_images: int,
    failures: Sequence[str],
) -> GridScores:
    """The scores of a data set.

    Args:
        name: of the data set.
        confusion: int64 [halves, T, W, C, C + 1]; halves is 1 or 2, the first is for choosing, the
            last for reporting.
        class_names: C names.
        groups: name of a group of classes -> their labels.
        num_images: images counted.
        failures: a line for each image that was left out.

    Raises:
        UserError: there is no labelled pixel, so nothing to choose by.
    """
    if not confusion[:, 0, 0].any(axis=(-2, -1)).all():
        raise UserError(
            f"data set {name}: there is no ground truth in its label maps"
            f"{' (or in one half of them)' if len(confusion) > 1 else ''}; choose another one"
        )
    choosing, reporting = (_miou(part) for part in (confusion[0], confusion[-1]))
    means = [
        [dict(Report(name, class_names, cell, num_images, groups=groups).means) for cell in row]
        for row in confusion[-1]
    ]
    details: dict[str, Any] = {
        "images": num_images,
        "left out": list(failures),
        # JSON knows no NaN
        **{
            key: [[None if math.isnan(cell[key]) else cell[key] for cell in row] for row in means]
            for key in means[0][0]
        },
    }
    return GridScores(name, choosing, reporting, details)


def _miou(confusion: np.ndarray) -> np.ndarray:
    return np.array([[100 * scores(cell).miou for cell in row] for row in confusion])


def mean_scores(results: Sequence[GridScores], name: str = "mean") -> GridScores:
    """The mean over data sets, each counting the same."""
    choosing = np.mean([result.choosing for result in results], axis=0)
    reporting = np.mean([result.reporting for result in results], axis=0)
    names = [result.name for result in results]
    return GridScores(name, choosing, reporting, {"data sets": names, "mIoU": reporting.tolist()})
