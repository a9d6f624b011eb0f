"""Where a result is lost: how well masks fit true regions, and the tables and chart of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ovseg.evaluation.confusion import NO_CLASS, most_confused
from ovseg.evaluation.figures import new_figure, save_figure
from ovseg.evaluation.report import Report
from ovseg.utils.io import write_json, write_text

#: what is compared -> what it means
SETTINGS = {
    "oracle masks, CLIP on masked crops": "true regions, each classified by CLIP on its crop with "
    "the background filled",
    "oracle masks, CLIP on unmasked crops": "the same on crops with their background left in",
    "predicted masks, oracle classes": "each mask has the class of the true region that it fits "
    "best, and counts by that IoU",
    "MaskFormer alone": "predicted masks, classified by MaskFormer",
    "CLIP alone": "predicted masks, classified by CLIP on masked crops",
    "ensemble": "predicted masks, both classifications together",
}
#: bins of the histogram of best IoU: 0, 0.01, ..., 1
IOU_BINS = 101
_RECALL_AT = tuple(round(0.05 * step, 2) for step in range(1, 20))
_PAIRS = 20
_COLOURS = {"all": "#495057", "seen": "#2980ff", "unseen": "#ff6348", "stuff": "#2ec478"}
_SCORES = {"mIoU": "all", "mIoU_seen": "seen", "mIoU_unseen": "unseen", "mIoU_stuff": "stuff"}


def pairwise_iou(masks: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Intersection over union of N masks and M regions.

    Args:
        masks: bool (N, P), of P pixels.
        regions: bool (M, P).

    Returns:
        float32 (N, M); 0 where both are empty.
    """
    intersection = masks.astype(np.float32) @ regions.astype(np.float32).T
    union = masks.sum(axis=1)[:, None] + regions.sum(axis=1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def recall(histogram: np.ndarray, at: float) -> float:
    """Share of regions whose best IoU is at least ``at``; NaN without regions.

    Args:
        histogram: int64 [..., IOU_BINS], regions by best IoU, rounded down to a hundredth.
        at: 0..1, in hundredths.
    """
    by_iou = histogram.reshape(-1, IOU_BINS).sum(axis=0)
    total = by_iou.sum()
    return float(by_iou[round(100 * at) :].sum() / total) if total else math.nan


@dataclass(frozen=True)
class Analysis:
    """What an analysis counted on one data set.

    Attributes:
        dataset: its name.
        class_names: C names.
        groups: name of a group of classes -> their labels.
        num_images: images counted.
        failures: a line for each image that was left out.
        confusion: int64 [len(SETTINGS), C, C + 1].
        regions: int64 (C,), true regions: all pixels of a class in an image are one.
        right: int64 (2, C), those that CLIP names rightly, on masked and on unmasked crops.
        best_iou: int64 (C, IOU_BINS), true regions by the IoU of the predicted mask that fits best.
        worst: file and mIoU (0..1, of the ensemble) of the images with the lowest mIoU.
    """

    dataset: str
    class_names: Sequence[str]
    groups: Mapping[str, Sequence[int]]
    num_images: int
    failures: Sequence[str]
    confusion: np.ndarray
    regions: np.ndarray
    right: np.ndarray
    best_iou: np.ndarray
    worst: Sequence[tuple[str, float]]

    @cached_property
    def means(self) -> dict[str, dict[str, float]]:
        """Mean scores in percent of every setting that was counted."""
        return {
            name: dict(
                Report(
                    self.dataset, self.class_names, confusion, self.num_images, groups=self.groups
                ).means
            )
            for name, confusion in zip(SETTINGS, self.confusion, strict=True)
            if confusion.any()
        }

    def _members(self) -> dict[str, list[int]]:
        everything = list(range(len(self.class_names)))
        # seen, unseen, stuff as in the table of mIoU
        order = [name for name in _SCORES.values() if name in self.groups]
        order += [name for name in self.groups if name not in order]
        members = {"all": everything, **{name: list(self.groups[name]) for name in order}}
        return {name: labels for name, labels in members.items() if self.regions[labels].any()}

    @cached_property
    def accuracy(self) -> dict[str, dict[str, float]]:
        """Percent of true regions that CLIP names rightly, by kind of crop and group of classes."""
        return {
            kind: {
                name: 100 * float(right[labels].sum() / self.regions[labels].sum())
                for name, labels in self._members().items()
            }
            for kind, right in zip(("masked", "unmasked"), self.right, strict=True)
        }

    @cached_property
    def recalls(self) -> dict[str, list[float]]:
        """Percent of true regions with a mask of at least each IoU, by group of classes."""
        return {
            name: [100 * recall(self.best_iou[labels], at) for at in _RECALL_AT]
            for name, labels in self._members().items()
        }

    def _confused(self) -> list[dict[str, Any]]:
        names = [*self.class_names, "(no class)"]  # by index -1
        assert NO_CLASS == -1
        return [
            {
                "truth": names[pair.truth],
                "predicted": names[pair.predicted],
                "pixels": pair.pixels,
                "share": pair.share,
            }
            for pair in most_confused(self.confusion[-1], _PAIRS)
        ]

    def document(self) -> dict[str, Any]:
        """What ``analysis.json`` holds."""
        return {
            "data set": self.dataset,
            "images": self.num_images,
            "left out": list(self.failures),
            "settings": {
                name: {
                    "meaning": SETTINGS[name],
                    **{key: None if math.isnan(v) else v for key, v in means.items()},
                }
                for name, means in self.means.items()
            },
            "true regions": int(self.regions.sum()),
            "percent of true regions named rightly by CLIP": self.accuracy,
            "recall": {"IoU": list(_RECALL_AT), **self.recalls},
            "most confused": self._confused(),
            "worst images": [{"file": file, "mIoU": 100 * score} for file, score in self.worst],
        }

    def text(self) -> str:
        """The tables, in Markdown."""
        shown = [key for key in _SCORES if any(key in means for means in self.means.values())]
        rows = [[name, *(means[key] for key in shown)] for name, means in self.means.items()]
        recall_at = [0.25, 0.5, 0.75, 0.9]
        places = [_RECALL_AT.index(at) for at in recall_at]
        parts = [
            f"# {self.dataset}: where the score is lost",
            f"{self.num_images} images, mIoU in %.",
            _table(["", *(_SCORES[key] for key in shown)], rows),
            "\n".join(f"* *{name}*: {SETTINGS[name]}." for name in self.means),
            f"## CLIP on true regions\n\n% of {int(self.regions.sum())} regions named rightly.",
            _table(
                ["crops", *self._members()],
                [[kind, *values.values()] for kind, values in self.accuracy.items()],
            ),
            "## Proposals\n\n% of true regions that a mask fits with at least this IoU.",
            _table(
                ["IoU", *(f"{at:g}" for at in recall_at)],
                [[name, *(values[i] for i in places)] for name, values in self.recalls.items()],
            ),
            "## Most confused classes, in the ensemble",
            _table(
                ["truth", "predicted", "pixels", "% of the class"],
                [
                    [pair["truth"], pair["predicted"], pair["pixels"], 100 * pair["share"]]
                    for pair in self._confused()
                ],
            ),
        ]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Write ``analysis.json``, ``analysis.md`` and ``analysis.png``."""
        write_json(folder / "analysis.json", self.document())
        write_text(folder / "analysis.md", self.text())
        write_analysis_chart(folder / "analysis.png", self)


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f")


def write_analysis_chart(path: Path, analysis: Analysis) -> None:
    """Write a PNG: mIoU of every setting by group of classes, and recall over IoU."""
    figure = new_figure(15, 5.6, dpi=110)
    axes: Any = figure.subplots(1, 2, width_ratios=(3, 2))
    bars, curves = axes
    shown = [key for key in _SCORES if any(key in means for means in analysis.means.values())]
    places = np.arange(len(analysis.means), dtype=float)
    height = 0.8 / len(shown)
    for number, key in enumerate(shown):
        values = np.nan_to_num([means[key] for means in analysis.means.values()])
        where = places + (number - (len(shown) - 1) / 2) * height
        name = _SCORES[key]
        bars.barh(where, values, 0.92 * height, label=name, color=_COLOURS[name])
        for y, value in zip(where, values, strict=True):
            bars.text(value + 0.6, y, f"{value:.1f}", va="center", fontsize=8)
    bars.set_yticks(places, list(analysis.means))
    bars.invert_yaxis()
    bars.set_xlim(0, 125)
    bars.set_xlabel("mIoU in %")
    bars.set_title(f"{analysis.dataset}: masks or classes?")
    for name, percents in analysis.recalls.items():
        curves.plot(_RECALL_AT, percents, label=name, color=_COLOURS.get(name), linewidth=2)
    curves.set_xlabel("IoU of the best predicted mask, at least")
    curves.set_ylabel("% of true regions")
    curves.set_xlim(0, 1)
    curves.set_ylim(0, 100)
    curves.set_title("Recall of the proposals")
    for part in axes:
        part.legend(frameon=False, loc="best")
        part.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
