"""The table of methods that were trained side by side."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ovseg.evaluation.comparison_report import comparison_table, draw_comparison_chart


def a_run(seen: float, unseen: float | None) -> dict:
    percent = {"mIoU_seen": seen, "mIoU_unseen": unseen, "mIoU": 10.0, "mIoU_harmonic": None}
    return {"percent": percent, "trained parameters": 2_540_000, "images a second": 4.0}


def test_rows_have_mean_and_spread(tmp_path: Path) -> None:
    results = {"b": [a_run(20, None), a_run(30, None)], "none": [], "a": [a_run(7, 1)]}
    table = comparison_table(results)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n")]
    assert rows[0][:6] == ["method", "seen", "unseen", "stuff", "all", "harmonic"]
    assert rows[2] == ["b", "25.0 ± 7.1", "-", "-", "10.0 ± 0.0", "-", "2.5 M", "4.0", "2"]
    assert rows[3] == ["a", "7.0", "1.0", "-", "10.0", "-", "2.5 M", "4.0", "1"]
    assert len(rows) == 4
    draw_comparison_chart(results, tmp_path / "chart.png", "a title")
    assert Image.open(tmp_path / "chart.png").size[0] > 500
