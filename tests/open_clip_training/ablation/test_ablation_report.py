"""What the tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from open_clip_training.ablation.recipes import BASELINE, RECIPES
from open_clip_training.ablation.report import draw_chart, tables
from ovseg.evaluation.figures import mean_and_deviation


def scores_of(value: float, weight: float = 0.2) -> dict[str, Any]:
    columns = dict.fromkeys(("all", "seen", "unseen"), value)
    kinds = {"maskformer": columns, "clip": columns, "ensemble": columns}
    return {"weight": weight, "history": {"pairs": 7, "nouns": 3}, **kinds}


def test_tables_hold_mean_and_deviation(tmp_path: Path) -> None:
    results = {recipe.name: [scores_of(10.0), scores_of(14.0, 0.4)] for recipe in RECIPES}
    results[BASELINE] = [scores_of(8.04)]
    text = tables(results)
    assert mean_and_deviation([10.0, 14.0]) == "12.0 ± 2.8"  # sqrt(8)
    lines = text.splitlines()
    baseline = next(line for line in lines if "original CLIP" in line)
    assert [cell.strip() for cell in baseline.strip("|").split("|")][1:] == [*["8.0"] * 6, "0.2"]
    both = next(line for line in lines if "both: fine-tuning" in line)
    cells = [cell.strip() for cell in both.strip("|").split("|")][1:]
    assert cells == [*["12.0 ± 2.8"] * 6, "0.2, 0.4"]
    assert all(f"(Table {number})" in text for number in (2, 3, 4, 6))
    draw_chart(results, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 5000
