"""A finished search: the point that it chooses, tables, ``search.json`` and heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ovseg.evaluation.ensemble_grid import Grid, GridScores, mean_scores
from ovseg.evaluation.figures import new_figure, save_figure
from ovseg.utils.io import write_json, write_text


@dataclass(frozen=True)
class Search:
    """A finished search.

    Attributes:
        grid: its points.
        results: of every data set.
        choose_on: names of the data sets that one point for all is chosen on.
        halves: whether points were chosen on one half of the images and reported on the other.
        about: what else ``search.json`` says: model, command and the like.
    """

    grid: Grid
    results: Sequence[GridScores]
    choose_on: Sequence[str]
    halves: bool
    about: Mapping[str, Any]

    @property
    def chosen(self) -> tuple[int, int]:
        """The point for all data sets: the best mean on those of ``choose_on``."""
        return mean_scores([r for r in self.results if r.name in self.choose_on]).best()

    @property
    def reported(self) -> list[GridScores]:
        """Data sets that the point was not chosen on; all, if it was chosen on all."""
        others = [result for result in self.results if result.name not in self.choose_on]
        return others or list(self.results)

    @property
    def is_held_out(self) -> bool:
        """Whether the point was chosen on other images than it is reported on."""
        return self.halves or len(self.choose_on) < len(self.results)

    def shown(self) -> list[GridScores]:
        """The tables and heat maps: every data set and, of several, the mean."""
        several = len(self.results) > 1
        return [*self.results, *([mean_scores(self.results)] if several else [])]

    def document(self) -> dict[str, Any]:
        """What ``search.json`` holds."""
        unseen = list(self.grid.unseen_weights)
        return {
            **self.about,
            "thresholds": list(self.grid.thresholds),
            "weights": list(self.grid.weights),
            **({"weights of unseen classes": unseen} if unseen else {}),
            "scores are": "percent; rows are thresholds, columns weights"
            + (", the rows of a threshold the weights of unseen classes" if unseen else ""),
            "halves": "chosen on every other image, reported on the rest" if self.halves else None,
            "chosen": {
                **self.grid.settings(self.chosen),
                "on": list(self.choose_on),
                "config": self.grid.config(self.chosen),
                "mIoU": {r.name: float(r.reporting[self.chosen]) for r in self.reported},
                "mean mIoU": float(np.mean([r.reporting[self.chosen] for r in self.reported])),
                "reported on other images than chosen on": self.is_held_out,
            },
            "data sets": {r.name: self._entry(r) for r in self.results},
            "mean": self._entry(mean_scores(self.results)) if len(self.results) > 1 else None,
        }

    def _entry(self, result: GridScores) -> dict[str, Any]:
        row, column = result.best()
        entry = {
            "best": {
                **self.grid.settings((row, column)),
                "config": self.grid.config((row, column)),
                "mIoU": float(result.reporting[row, column]),
            },
            **result.details,
        }
        if self.halves:
            entry["mIoU of the choosing half"] = result.choosing.tolist()
        return entry

    def text(self) -> str:
        """Tables with the best point marked, and the config lines to paste (Markdown)."""
        parts = [_table(result, self.grid, self.halves) for result in self.shown()]
        where = ", ".join(self.choose_on)
        numbers = ", ".join(f"{r.name} {r.reporting[self.chosen]:.2f} %" for r in self.reported)
        parts.append(
            f"Best on {where}{' (every other image)' if self.halves else ''}:\n\n"
            + "".join(f"    {line}\n" for line in self.grid.config(self.chosen))
            + f"\nmIoU there{' (the other images)' if self.halves else ''}: {numbers}."
        )
        if not self.is_held_out:
            parts.append(
                "The point was chosen on the images that it is reported on: the score is an upper "
                "bound. --held-out or --choose-on avoid that."
            )
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write ``search.json``, ``search.md`` and ``heatmap_<data set>.png``; their paths."""
        paths = [folder / "search.json", folder / "search.md"]
        write_json(paths[0], self.document())
        write_text(paths[1], self.text())
        for result in self.shown():
            paths.append(folder / f"heatmap_{result.name}.png")
            write_heat_map(paths[-1], result, self.grid)
        return paths


def _table(result: GridScores, grid: Grid, halves: bool) -> str:
    best = result.best()
    rows = [
        [name]
        + [
            f"{value:.2f}{' *' if (i, j) == best else ''}"
            for j, value in enumerate(result.reporting[i])
        ]
        for i, name in enumerate(_row_names(grid))
    ]
    headers = [f"{_rows_are(grid)} \\ weight", *(f"{weight:.10g}" for weight in grid.weights)]
    table = tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, stralign="right")
    note = " of the images not chosen on, * best on the others" if halves else ", * best"
    return f"{result.name}: mIoU in %{note}\n\n{table}"


def _rows_are(grid: Grid) -> str:
    return "threshold, weight of unseen" if grid.unseen_weights else "threshold"


def _row_names(grid: Grid) -> list[str]:
    values = [[value for value in row if value is not None] for row in grid.rows]
    return [", ".join(f"{value:.10g}" for value in row) for row in values]


def write_heat_map(path: Path, result: GridScores, grid: Grid) -> None:
    """Write a PNG: a cell a point, its mIoU in it, the best one framed."""
    from matplotlib.patches import Rectangle

    rows, columns = grid.shape
    figure = new_figure(max(2.4 + 0.72 * columns, 5.2), 1.7 + 0.5 * rows, dpi=130)
    axes: Any = figure.subplots()
    values = result.reporting
    image = axes.imshow(values, cmap="viridis", aspect="auto", origin="lower")
    middle = (values.min() + values.max()) / 2
    for (i, j), value in np.ndenumerate(values):
        ink = "white" if value < middle else "black"
        axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=9, color=ink)
    row, column = result.best()
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#ff2d20", linewidth=2.5))
    axes.set_xticks(range(columns), [f"{weight:.10g}" for weight in grid.weights])
    axes.set_yticks(range(rows), _row_names(grid))
    of_seen = ", for seen classes" if grid.unseen_weights else ""
    axes.set_xlabel(f"weight of CLIP in the ensemble{of_seen}")
    axes.set_ylabel(f"mask {_rows_are(grid)}")
    axes.set_title(f"{result.name}: mIoU in %", fontsize=11)
    figure.colorbar(image, ax=axes)
    save_figure(figure, path)
