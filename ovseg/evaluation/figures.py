"""Figures of matplotlib, which is imported when one is drawn: it takes its time."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ovseg.utils.io import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, dpi: int) -> Figure:
    """An empty figure, sides in inches, that needs no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean and, of several values, their sample standard deviation; "-" of none."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def draw_bars(
    axes: Axes, rows: Sequence[str], columns: Mapping[str, Sequence[Sequence[float]]]
) -> None:
    """A group of horizontal bars for each row: means over runs in percent, with their spread.

    Args:
        axes: to draw in.
        rows: their names, from the top.
        columns: by name, for each row the values of its runs; may be none.
    """
    for index, (name, values) in enumerate(columns.items()):
        means = [statistics.mean(each) if each else 0.0 for each in values]
        spreads = [statistics.stdev(each) if len(each) > 1 else 0.0 for each in values]
        places = [row + 0.27 * (index - 1) for row in range(len(rows))]
        axes.barh(places, means, 0.25, xerr=spreads, label=name)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("mIoU in percent")
    axes.grid(axis="x", alpha=0.3)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
