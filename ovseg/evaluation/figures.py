"""Figures of matplotlib, which is imported when one is drawn: it takes its time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ovseg.utils.io import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, dpi: int) -> Figure:
    """An empty figure, sides in inches, that needs no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
