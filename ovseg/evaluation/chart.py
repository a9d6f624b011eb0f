"""A chart of the classes' IoU and of what they are taken for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovseg.evaluation.confusion import scores
from ovseg.evaluation.figures import new_figure, save_figure

# of more classes than this the best and the worst half as many each are shown
_MAX_BARS = 40
# the confusion matrix shows the classes with the most mistakes
_MAX_CELLS = 20
_LONGEST_NAME = 24
_INK, _BAR = "#212529", "#2980ff"


def write_chart(
    path: str | os.PathLike[str], title: str, confusion: np.ndarray, class_names: Sequence[str]
) -> None:
    """Write a PNG: bars of IoU, the best first, and the confusion matrix as a heat map.

    Of more than 40 classes in the ground truth the 20 best and 20 worst have a bar, and of more
    than 20 those with the most wrong pixels are in the matrix; its last column sums up the rest.

    Args:
        path: where to.
        title: over the chart; the mean IoU is added.
        confusion: int64 (C, C + 1), see :mod:`ovseg.evaluation.confusion`.
        class_names: C names.
    """
    names = np.array([_short(name) for name in class_names], dtype=object)
    result = scores(confusion)
    ranked = np.argsort(-result.iou, kind="stable")  # NaN, not in the truth, comes last
    ranked = ranked[: int(result.in_truth.sum())]
    shown = ranked
    if len(ranked) > _MAX_BARS:
        shown = np.concatenate([ranked[: _MAX_BARS // 2], ranked[-_MAX_BARS // 2 :]])
    cells = _most_mistaken(confusion, ranked)
    height = 2.0 + 0.26 * max(len(shown), 1.3 * len(cells), 8)
    figure = new_figure(16, height, dpi=100)
    figure.suptitle(f"{title}: mIoU {100 * result.miou:.2f} %", color=_INK, fontsize=14)
    bars, matrix = figure.subplots(1, 2, width_ratios=(2, 3))
    _draw_bars(bars, names[shown], 100 * result.iou[shown], len(ranked))
    if len(cells):
        _draw_matrix(matrix, names[cells], _shares(confusion, cells))
    else:  # no pixel of a class
        matrix.set_axis_off()
    save_figure(figure, path)


def _short(name: str) -> str:
    # "$" would start a formula
    name = name.replace("$", r"\$")
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1].rstrip()}…"


def _most_mistaken(confusion: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Those of the classes ``present`` that take part in the most wrong pixels, in label order."""
    square = confusion[:, :-1]
    wrong = confusion.sum(axis=1) + square.sum(axis=0) - 2 * np.diagonal(square)
    return np.sort(present[np.argsort(-wrong[present], kind="stable")[:_MAX_CELLS]])


def _shares(confusion: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Percent of each class's pixels by predicted class; the last column is everything else."""
    totals = confusion[cells].sum(axis=1, keepdims=True)
    inside = confusion[np.ix_(cells, cells)]
    return 100 * np.hstack([inside, totals - inside.sum(axis=1, keepdims=True)]) / totals


def _draw_bars(axes: Any, names: np.ndarray, percents: np.ndarray, classes: int) -> None:
    places = np.arange(len(names), dtype=float)
    if classes > len(names):
        places[len(names) // 2 :] += 1  # a gap between the best and the worst
    axes.barh(places, percents, color=_BAR)
    for place, percent in zip(places, percents, strict=True):
        axes.text(percent + 1, place, f"{percent:.1f}", va="center", fontsize=8, color=_INK)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlim(0, 110)
    axes.set_xlabel("IoU in %")
    which = f"the best and worst of {classes} classes" if classes > len(names) else "all classes"
    axes.set_title(f"IoU, {which}", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_matrix(axes: Any, names: np.ndarray, percents: np.ndarray) -> None:
    axes.imshow(percents, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    columns = [*names, "anything else"]
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for (row, column), percent in np.ndenumerate(percents):
        if percent >= 0.5:
            colour = "white" if percent > 60 else _INK
            text = f"{percent:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xlabel("predicted")
    axes.set_ylabel("ground truth")
    axes.set_title("% of a class's pixels, classes with the most wrong pixels", fontsize=11)
