"""Every ensemble weight and mask threshold from one pass over a data set.

For an image the proposals are computed once, CLIP once for each threshold, and each weight's labels
from those, into a confusion matrix of its own. The numbers are those of separate evaluations.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from ovseg.data.datasets import class_groups, dataset_classes, ignore_label
from ovseg.data.label_maps import matching_truth
from ovseg.data.loader import Example
from ovseg.engine.resumable import Counts, RegionCounter, model_settings, resumable_pass
from ovseg.evaluation.confusion import new_confusion
from ovseg.evaluation.ensemble_grid import Grid, GridScores, grid_scores
from ovseg.evaluation.sem_seg import count_labels
from ovseg.modeling import OVSeg
from ovseg.structures import Regions


class GridCounter(RegionCounter):
    """Counts images at all points of a grid."""

    def __init__(self, model: OVSeg, dataset_name: str, grid: Grid, halves: int = 1) -> None:
        """Count with ``model``, which is in evaluation mode.

        Args:
            model: proposes and classifies.
            dataset_name: its metadata give classes and ignored label.
            grid: thresholds and weights.
            halves: 1, or 2 to count every other image apart.
        """
        classes = len(dataset_classes([dataset_name]))
        shape = (halves, *grid.shape)
        self.counts = Counts(
            {"confusion": np.zeros((*shape, *new_confusion(classes).shape), np.int64)}
        )
        self._model, self._grid = model, grid
        self._ignore_label = ignore_label(dataset_name)

    def count(self, example: Example, regions: Regions) -> None:
        """Count one image."""
        truth = matching_truth(example, (example["height"], example["width"]))
        confusion = self.counts.arrays["confusion"]
        part = confusion[example["position"] % len(confusion)]
        text = self._model.text(example["class_names"])
        encoded, cut_at = regions, None
        for row, (threshold, unseen) in enumerate(self._grid.rows):
            if threshold != cut_at:
                encoded, cut_at = self._model.encode_regions(regions, threshold), threshold
            alternatives = [
                self._model.classify(encoded, text, weight, unseen) for weight in self._grid.weights
            ]
            maps = self._model.label_maps(example, regions, alternatives, threshold)
            for column, labels in enumerate(maps.cpu().numpy()):
                count_labels(part[row, column], labels, truth, example, self._ignore_label)


def search_dataset(
    cfg: CfgNode, model: OVSeg, dataset_name: str, grid: Grid, halves: int, folder: Path
) -> GridScores | None:
    """Search one data set, over all processes.

    Args:
        cfg: how images are read.
        model: with its weights, in evaluation mode.
        dataset_name: a registered data set.
        grid: thresholds and weights.
        halves: 1, or 2 to choose on every other image and to report on the rest.
        folder: where unfinished counts are kept.

    Returns:
        On the main process the scores; None on the others.
    """
    counter = GridCounter(model, dataset_name, grid, halves)
    settings: Mapping[str, Any] = {
        "search": [list(part) for part in (grid.thresholds, grid.weights, grid.unseen_weights)],
        "halves": halves,
        **model_settings(cfg),
    }
    counts = resumable_pass(
        cfg, dataset_name, counter.counts, counter, folder=folder, settings=settings
    )
    if counts is None:
        return None
    return grid_scores(
        dataset_name,
        counts.arrays["confusion"],
        dataset_classes([dataset_name]),
        class_groups(dataset_name),
        counts.images,
        counts.failures,
    )
