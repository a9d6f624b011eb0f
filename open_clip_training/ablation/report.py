"""Tables and chart of the ablation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from open_clip_training.ablation.recipes import BASELINE, DEPTH, ORIGINAL, RECIPES
from ovseg.evaluation.figures import draw_bars, mean_and_deviation, new_figure, save_figure

COLUMNS = ("all", "seen", "unseen")
#: results of one recipe, one for each seed
Results = dict[str, list[dict[str, Any]]]

_ADAPTATION = (
    "prompts", "finetuned", "both", "joint", "finetuned_long", "both_long", "finetuned_longer",
    "unmasked",
)  # fmt: skip
_FROZEN = (BASELINE, "text_prompts", "template_map", "finetuned", "tuned_map")
_FASTER = (
    "finetuned", "undropped", "dropped", "finetuned_longer", "shared", "shared_queries",
    "shared_teacher", "shared_bias", "shared_visual",
)  # fmt: skip
#: where the usual label speaks of the row above it in another table
_FASTER_LABELS = {"finetuned_longer": "fine-tuning, three times the steps"}
_LABELS = {recipe.name: recipe.label for recipe in (ORIGINAL, *RECIPES)}


def tables(results: Results) -> str:
    """All tables as Markdown: the paper's 3, 2, 6 and 4, of a frozen CLIP, of faster modes."""
    parts = []
    for title, table in (
        ("How CLIP is adapted (Table 3)", _rows(results, (BASELINE, *_ADAPTATION), _LABELS)),
        ("What it is adapted on (Table 2)", _pairs(results)),
        ("Who classifies (Table 6)", _branches(results)),
        ("Depth of the mask prompts (Table 4)", _depths(results)),
        ("What is learned for the texts", _rows(results, _FROZEN, _LABELS)),
        ("Less for CLIP to look at", _rows(results, _FASTER, _LABELS | _FASTER_LABELS)),
    ):
        alignment = ["left", *["right"] * (len(table[0]) - 1)]
        text = tabulate(
            table[1:], table[0], tablefmt="pipe", colalign=alignment, disable_numparse=True
        )
        parts.append(f"**{title}**\n\n{text}")
    return "\n\n".join(parts) + "\n"


def _rows(results: Results, names: Sequence[str], labels: dict[str, str]) -> list[list[str]]:
    header = ["", *(f"ensemble, {c}" for c in COLUMNS), *(f"CLIP alone, {c}" for c in COLUMNS)]
    table = [[*header, "weight"]]
    for name in names:
        of_seeds = results[name]
        cells = [
            mean_and_deviation([result[kind][column] for result in of_seeds])
            for kind in ("ensemble", "clip")
            for column in COLUMNS
        ]
        weights = sorted({result["weight"] for result in of_seeds})
        table.append([labels[name], *cells, ", ".join(f"{weight:g}" for weight in weights)])
    return table


def _pairs(results: Results) -> list[list[str]]:
    labels = {
        BASELINE: "none: original CLIP",
        "ground_truth": "ground-truth regions and class names",
        "finetuned": "proposals and nouns of captions",
    }
    table = _rows(results, list(labels), labels)
    table[0][1:1] = ["pairs", "nouns"]
    for row, name in zip(table[1:], labels, strict=True):
        history = results[name][0].get("history", {})
        row[1:1] = [str(history.get("pairs", "")), str(history.get("nouns", ""))]
    return table


def _branches(results: Results) -> list[list[str]]:
    table = [["", *COLUMNS]]
    kinds = {"maskformer": "MaskFormer alone", "clip": "CLIP alone", "ensemble": "ensemble"}
    for name, clip in ((BASELINE, "original"), ("both", "adapted")):
        for kind, label in kinds.items():
            if kind == "maskformer" and name != BASELINE:
                continue  # the same whatever CLIP
            values = [
                mean_and_deviation([result[kind][column] for result in results[name]])
                for column in COLUMNS
            ]
            table.append([label if kind == "maskformer" else f"{label}, {clip} CLIP", *values])
    return table


def _depths(results: Results) -> list[list[str]]:
    labels = {
        BASELINE: "none",
        "prompts_depth1": "1",
        "prompts": str(DEPTH),
        "prompts_depth6": "6",
    }
    table = _rows(results, list(labels), labels)
    table[0][0] = "depth"
    return table


def draw_chart(results: Results, path: Path) -> None:
    """Bars of the rows of Table 3: ensemble and CLIP alone, mean and spread over the seeds."""
    names = (BASELINE, *_ADAPTATION)
    figure = new_figure(11, 5.4, dpi=110)
    for axes, kind, title in zip(
        figure.subplots(1, 2, sharex=True, sharey=True),
        ("ensemble", "clip"),
        ("ensemble of MaskFormer and CLIP", "CLIP alone"),
        strict=True,
    ):
        columns = {
            column: [[result[kind][column] for result in results[name]] for name in names]
            for column in COLUMNS
        }
        draw_bars(axes, [_LABELS[name] for name in names], columns)
        axes.set_title(title)
    axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save_figure(figure, path)
