"""Results of an evaluation as tables, ``results.json`` and ``results.md``."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ovseg.evaluation.chart import write_chart
from ovseg.evaluation.confusion import NO_CLASS, Scores, group_miou, most_confused, scores
from ovseg.utils.io import write_json, write_text

#: what the results' keys stand for; per-class ones are "IoU-<class>" and "ACC-<class>"
MEANINGS = {
    "mIoU": "mean IoU as in the published table: over classes in ground truth or prediction",
    "mIoU_detectron2": "mean IoU as in current detectron2: over classes in ground truth",
    "fwIoU": "IoU weighted by the classes' pixels",
    "mACC": "mean accuracy of the classes",
    "pACC": "share of pixels with the right class",
    "mIoU_seen": "mIoU of the objects seen in training",
    "mIoU_unseen": "mIoU of the objects not seen in training",
    "mIoU_stuff": "mIoU of the stuff classes",
    "mIoU_harmonic": "harmonic mean of mIoU_seen and mIoU_unseen",
    "PQ": "panoptic quality: SQ x RQ of each class, mean over the classes",
    "SQ": "segmentation quality: mean IoU of the segments that match",
    "RQ": "recognition quality: F1 of the segments that match",
    "PQ_th": "PQ of the things",
    "PQ_st": "PQ of the stuff",
    "PQ_seen": "PQ of the objects seen in training",
    "PQ_unseen": "PQ of the objects not seen in training",
    "AP": "average precision of masks, mean over IoU thresholds 0.5 to 0.95",
    "AP50": "average precision at IoU 0.5",
    "AP75": "average precision at IoU 0.75",
    "APs": "AP of objects below 32 x 32 pixels",
    "APm": "AP of objects from 32 x 32 to 96 x 96 pixels",
    "APl": "AP of objects above 96 x 96 pixels",
    "AP_seen": "AP of the objects seen in training",
    "AP_unseen": "AP of the objects not seen in training",
}
#: kinds of results besides the semantic ones, by detectron2's names
SEGMENT_TITLES = {"panoptic_seg": "Panoptic segmentation", "segm": "Instances"}
_CONFUSED_PAIRS = 20


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        dataset: name of the data set.
        class_names: C names.
        confusion: int64 (C, C + 1), see :mod:`ovseg.evaluation.confusion`.
        num_images: images counted.
        failures: a line for each image that could not be counted.
        groups: name of a group of classes -> their labels.
        segments: "panoptic_seg" and "segm", as far as they were evaluated -> name -> percent.
    """

    dataset: str
    class_names: Sequence[str]
    confusion: np.ndarray
    num_images: int
    failures: Sequence[str] = ()
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)
    segments: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @cached_property
    def scores(self) -> Scores:
        """All scores, as fractions."""
        return scores(self.confusion)

    @cached_property
    def means(self) -> OrderedDict[str, float]:
        """Every mean score in percent."""
        result = self.scores
        means = OrderedDict(
            mIoU=result.miou,
            mIoU_detectron2=result.miou_truth,
            fwIoU=result.fwiou,
            mACC=result.macc,
            pACC=result.pacc,
        )
        for group, value in group_miou(result, self.groups).items():
            means[f"mIoU_{group}"] = value
        return OrderedDict((name, 100 * value) for name, value in means.items())

    def percents(self) -> OrderedDict[str, float]:
        """:attr:`means`, then ``IoU-<class>`` and ``ACC-<class>``; NaN for what does not exist."""
        percents = self.means.copy()
        for kind, values in (("IoU", self.scores.iou), ("ACC", self.scores.acc)):
            for name, value in zip(self.class_names, values, strict=True):
                percents[f"{kind}-{name}"] = 100 * float(value)
        return percents

    def means_table(self) -> str:
        """A table of the mean scores with their meaning."""
        return _scores_table(self.means)

    def segments_table(self, part: str) -> str:
        """The same of one of :attr:`segments`."""
        return _scores_table(self.segments[part])

    def class_table(self, columns: int = 3) -> str:
        """IoU and accuracy of every class in the ground truth, several beside each other."""
        cells = [row[:3] for row in self._class_rows()]
        rows = [
            [value for cell in cells[start : start + columns] for value in cell]
            for start in range(0, len(cells), columns)
        ]
        return _table(["class", "IoU", "ACC"] * min(columns, len(cells)), rows)

    def markdown(self) -> str:
        """All of it as a document that shows ``chart.png`` beside it."""
        parts = [
            f"# Results on {self.dataset}",
            f"{self.num_images} images, {int(self.scores.in_truth.sum())} of "
            f"{len(self.class_names)} classes in the ground truth.",
            self.means_table(),
        ]
        for part in self.segments:
            parts += [f"## {SEGMENT_TITLES[part]}", self.segments_table(part)]
        if self.failures:
            parts += ["## Not evaluated", "\n".join(f"* {line}" for line in self.failures)]
        parts += [
            "![IoU of the classes and what they are taken for](chart.png)",
            "## Classes",
            _table(["class", "IoU %", "ACC %", "% of all pixels"], self._class_rows()),
            "## Most frequent mistakes",
            _table(["class", "taken for", "% of the class", "% of all pixels"], self._mistakes()),
        ]
        return "\n\n".join(parts) + "\n"

    def document(self) -> dict[str, object]:
        """All of it as what json can hold."""
        percents = self.percents()
        names = [*percents, *(name for part in self.segments.values() for name in part)]
        return {
            "dataset": self.dataset,
            "images": self.num_images,
            "failed": list(self.failures),
            "percent": _without_nan(percents),
            **{part: _without_nan(values) for part, values in self.segments.items()},
            "meaning": {name: MEANINGS[name] for name in names if name in MEANINGS},
        }

    def write(self, folder: Path) -> None:
        """Write ``results.json``, ``results.md`` and ``chart.png``."""
        write_json(folder / "results.json", self.document())
        write_text(folder / "results.md", self.markdown())
        write_chart(folder / "chart.png", self.dataset, self.confusion, self.class_names)

    def _class_rows(self) -> list[list[object]]:
        share = self.confusion.sum(axis=1) / max(1, self.confusion.sum())
        values = zip(self.class_names, self.scores.iou, self.scores.acc, share, strict=True)
        return [
            [name, 100 * iou, 100 * acc, 100 * part] for name, iou, acc, part in values if part > 0
        ]

    def _mistakes(self) -> list[list[object]]:
        total = self.confusion.sum()
        rows: list[list[object]] = []
        for mistake in most_confused(self.confusion, _CONFUSED_PAIRS):
            predicted = mistake.predicted
            name = "no class" if predicted == NO_CLASS else self.class_names[predicted]
            part = 100 * mistake.pixels / total
            rows.append([self.class_names[mistake.truth], name, 100 * mistake.share, part])
        return rows


def _without_nan(percents: Mapping[str, float]) -> dict[str, float | None]:
    """What json can hold, which knows no NaN."""
    return {name: None if math.isnan(value) else value for name, value in percents.items()}


def _scores_table(percents: Mapping[str, float]) -> str:
    rows = [[name, value, MEANINGS.get(name, "")] for name, value in percents.items()]
    return _table(["score", "%", ""], rows, digits=2)


def _table(headers: Sequence[str], rows: Sequence[Sequence[object]], digits: int = 1) -> str:
    escaped = [
        [value.replace("|", r"\|") if isinstance(value, str) else value for value in row]
        for row in rows
    ]
    floatfmt = f".{digits}f"
    return tabulate(escaped, headers=headers, floatfmt=floatfmt, tablefmt="pipe")
