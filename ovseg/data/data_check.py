"""A look at the ground truth of a data set before any work: can a run succeed with it?

Small data sets are looked at whole, of large ones a sample; what the sample does not show is met
when the image is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from ovseg.data.data_report import DataReport
from ovseg.data.datasets import dataset_classes, ignore_label, load_dataset
from ovseg.data.label_maps import (
    ColouredLabels,
    UnreadableTruth,
    check_fit,
    read_truth,
    truth_place,
    way_out,
)
from ovseg.data.own.known_forms import advice_for_colours, advice_for_values
from ovseg.errors import UserError
from ovseg.utils.images import image_size, read_image

#: data sets of at most so many images are looked at whole, of larger ones so many
AT_MOST = 200


@dataclass
class _Seen:
    """What one image shows."""

    values: Counter[int] = field(default_factory=Counter)
    unnamed: Mapping[str, int] = field(default_factory=dict)
    fault: UserError | None = None


def check_data(name: str, everything: bool = False) -> DataReport:
    """Look at the ground truth of a registered data set.

    Args:
        name: of the data set.
        everything: all label maps, and all images decoded; else up to :data:`AT_MOST` label maps,
            evenly spread, and the sizes of their images.

    Raises:
        UserError: the data set is not there, or is one of images alone.
    """
    examples = load_dataset(name)
    if not has_truth(examples[0]):
        raise UserError(
            f"data set {name} has images alone; give its ground truth in "
            f"{examples[0].get('described_in', 'its description')} (key labels, coco_json or yolo) "
            "to train or to evaluate, or segment it with ovseg segment --dataset"
        )
    chosen = examples
    if len(examples) > AT_MOST and not everything:
        places = np.linspace(0, len(examples) - 1, AT_MOST).round().astype(int)
        chosen = [examples[place] for place in places]
    names = dataset_classes([name])
    zeros = np.zeros(len(names), np.int64)
    report = DataReport(
        name, names, ignore_label(name), len(examples), len(chosen), zeros, zeros.copy()
    )
    values: Counter[int] = Counter()
    # decoding and counting leave the interpreter to other threads
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        looks = pool.map(lambda example: _look(example, everything), chosen)
        bar = tqdm(looks, total=len(chosen), desc=f"check {name}", leave=False, disable=None)
        for example, seen in zip(chosen, bar, strict=True):
            _count(report, example, seen)
            values.update(seen.values)
    _advise(report, chosen, values)
    return report


def has_truth(example: Mapping[str, Any]) -> bool:
    """Whether a dataset dict says where its ground truth is."""
    return "truth" in example or "sem_seg_file_name" in example


def _look(example: Mapping[str, Any], decode: bool) -> _Seen:
    seen = _Seen()
    try:
        image = example["file_name"]
        size = read_image(image).shape[:2] if decode else image_size(image)
    except UserError as error:
        seen.fault = UnreadableTruth(str(error))
        return seen
    try:
        if "truth" in example:
            truth = example["truth"]
            labels, seen.unnamed = truth.decode()
            truth.check_strict(seen.unnamed)
        else:
            labels = read_truth(example)
        check_fit(example, labels, size, f"its image {example['file_name']}")
    except UserError as error:
        seen.fault = error
        return seen
    found, counts = np.unique(labels, return_counts=True)
    seen.values = Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    return seen


def _count(report: DataReport, example: Mapping[str, Any], seen: _Seen) -> None:
    if seen.fault is not None:
        kind = report.unreadable if isinstance(seen.fault, UnreadableTruth) else report.wrong
        kind.append(str(seen.fault))
        if isinstance(seen.fault, ColouredLabels):
            report.coloured.append(example["sem_seg_file_name"])
        return
    report.unnamed.update(seen.unnamed)
    outside = []
    for value, pixels in seen.values.items():
        if value == report.ignored:
            report.ignored_pixels += pixels
        elif 0 <= value < len(report.class_names):
            report.pixels[value] += pixels
            report.occurrences[value] += 1
        else:
            outside.append(value)
    if outside:
        report.wrong.append(
            f"{truth_place(example)} holds label {outside[0]}, outside the "
            f"{len(report.class_names)} classes, and not the ignored {report.ignored}; "
            f"{way_out(example)}"
        )


def _advise(
    report: DataReport, examples: Sequence[Mapping[str, Any]], values: Mapping[int, int]
) -> None:
    """Name the form that label maps of one's own data set seem to have."""
    plain = [
        example
        for example in examples
        if "described_in" in example and "truth" not in example and "segments" not in example
    ]
    if not plain:
        return
    report.way_out = f"correct them, or what {plain[0]['described_in']} says of them"
    if report.coloured:
        # of single ones among others nothing is said
        if len(report.coloured) == len(report.wrong) == len(examples) - len(report.unreadable):
            report.advice = advice_for_colours(report.coloured[:10], report.class_names)
    else:
        report.advice = advice_for_values(values, report.class_names, report.ignored)
