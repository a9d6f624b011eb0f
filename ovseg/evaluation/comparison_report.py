"""Table and chart of methods that were trained side by side."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from ovseg.evaluation.figures import draw_bars, mean_and_deviation, new_figure, save_figure

#: column -> key of an evaluation's results
COLUMNS = {
    "seen": "mIoU_seen",
    "unseen": "mIoU_unseen",
    "stuff": "mIoU_stuff",
    "all": "mIoU",
    "harmonic": "mIoU_harmonic",
}
Results = Mapping[str, Sequence[Mapping[str, Any]]]


def comparison_table(results: Results) -> str:
    """A Markdown table: a row a method, mean and sample standard deviation over its runs.

    Args:
        results: of the runs of each method: ``percent`` by key, ``trained parameters`` and
            ``images a second``. Methods without a run are left out.
    """
    rows = []
    for method, runs in results.items():
        if not runs:
            continue
        cells = [mean_and_deviation(_values(runs, key)) for key in COLUMNS.values()]
        trained = runs[0]["trained parameters"] / 1e6
        speeds = [run["images a second"] for run in runs if run["images a second"]]
        speed = f"{statistics.mean(speeds):.1f}" if speeds else "-"
        rows.append([method, *cells, f"{trained:.1f} M", speed, str(len(runs))])
    headers = ["method", *COLUMNS, "trained parameters", "images a second", "runs"]
    alignment = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers, tablefmt="pipe", colalign=alignment, disable_numparse=True)


def draw_comparison_chart(results: Results, path: str | os.PathLike[str], title: str) -> None:
    """Write a PNG: bars of mIoU of seen, unseen and all classes, with the spread over the runs."""
    methods = [method for method, runs in results.items() if runs]
    figure = new_figure(9, 1.6 + 0.6 * len(methods), dpi=110)
    axes: Any = figure.subplots()
    columns = {
        name: [_values(results[method], COLUMNS[name]) for method in methods]
        for name in ("seen", "unseen", "all")
    }
    draw_bars(axes, methods, columns)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=11)
    axes.legend()
    save_figure(figure, path)


def _values(runs: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [run["percent"][key] for run in runs if run["percent"].get(key) is not None]
