"""Segmentation scores as pure functions of a confusion matrix.

A confusion matrix for C classes is int64 (C, C + 1): row = true class, column = predicted class,
the last column = no class predicted. Pixels whose truth is the ignored label are not in it. All
scores are fractions in 0..1; NaN stands for what does not exist.

Two readings of the mean IoU are in use. They differ in classes that are predicted somewhere but
occur nowhere in the ground truth: such a class has IoU 0 in the published table (``miou``), and is
left out by current detectron2 (``miou_truth``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: a predicted label that stands for "none of the classes"
NO_CLASS = -1


@dataclass(frozen=True)
class Scores:
    """Scores of one confusion matrix, as fractions.

    Attributes:
        iou: float64 (C,), intersection over union of each class; NaN where it is not in the truth.
        acc: float64 (C,), share of each class's pixels that got it; NaN where not in the truth.
        in_truth: bool (C,), classes that occur in the ground truth.
        in_either: bool (C,), classes that occur in the ground truth or in a prediction.
        miou: sum of ``iou`` over the number of classes in ``in_either`` (the published table).
        miou_truth: mean of ``iou`` over the classes in ``in_truth`` (current detectron2).
        fwiou: mean of ``iou`` weighted by the classes' pixels in the truth.
        macc: mean of ``acc`` over the classes in ``in_truth``.
        pacc: share of all pixels that got their class.
    """

    iou: np.ndarray
    acc: np.ndarray
    in_truth: np.ndarray
    in_either: np.ndarray
    miou: float
    miou_truth: float
    fwiou: float
    macc: float
    pacc: float


def new_confusion(num_classes: int) -> np.ndarray:
    """An empty confusion matrix, int64 (C, C + 1)."""
    return np.zeros((num_classes, num_classes + 1), dtype=np.int64)


def update_confusion(
    confusion: np.ndarray, labels: np.ndarray, truth: np.ndarray, ignore_label: int
) -> None:
    """Count one image into ``confusion``, in place.

    Args:
        confusion: int64 (C, C + 1).
        labels: integer (H, W), predicted classes 0..C-1, or ``NO_CLASS``.
        truth: integer (H, W), true classes 0..C-1, or ``ignore_label``.
        ignore_label: not one of the classes.

    Raises:
        ValueError: the shapes differ, or a value is outside its range.
    """
    num_classes = confusion.shape[0]
    if labels.shape != truth.shape:
        raise ValueError(f"prediction has shape {labels.shape}, ground truth {truth.shape}")
    if not truth.size:
        return
    counted = truth != ignore_label
    true_class = truth[counted].astype(np.int32)
    predicted = labels[counted].astype(np.int32)
    if not true_class.size:
        return
    # extremes over the counted pixels alone, far cheaper than listing the values
    for values, lowest, what in (
        (true_class, 0, "ground truth"),
        (predicted, NO_CLASS, "prediction"),
    ):
        for value in (int(values.min()), int(values.max())):
            if not lowest <= value < num_classes:
                raise ValueError(f"{what} holds label {value}, outside the {num_classes} classes")
    predicted[predicted == NO_CLASS] = num_classes
    pairs = true_class * np.int32(num_classes + 1) + predicted
    confusion += np.bincount(pairs, minlength=confusion.size).reshape(confusion.shape)


def scores(confusion: np.ndarray) -> Scores:
    """All scores of a confusion matrix (C, C + 1); an empty one gives NaN."""
    hits = np.diagonal(confusion).astype(np.float64)
    in_truth_pixels = confusion.sum(axis=1).astype(np.float64)
    predicted_pixels = confusion[:, :-1].sum(axis=0).astype(np.float64)
    union = in_truth_pixels + predicted_pixels - hits
    in_truth, in_either = in_truth_pixels > 0, union > 0
    nan = np.full_like(hits, np.nan)
    iou = np.divide(hits, union, out=nan.copy(), where=in_truth)
    acc = np.divide(hits, in_truth_pixels, out=nan.copy(), where=in_truth)
    total = in_truth_pixels.sum()
    return Scores(
        iou=iou,
        acc=acc,
        in_truth=in_truth,
        in_either=in_either,
        miou=_ratio(iou[in_truth].sum(), in_either.sum()),
        miou_truth=_ratio(iou[in_truth].sum(), in_truth.sum()),
        fwiou=_ratio((iou[in_truth] * in_truth_pixels[in_truth]).sum(), total),
        macc=_ratio(acc[in_truth].sum(), in_truth.sum()),
        pacc=_ratio(hits.sum(), total),
    )


def group_miou(result: Scores, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Mean IoU of groups of classes, read as ``Scores.miou`` (the published table).

    Args:
        result: scores over all classes; IoU is that of the full problem, so a seen class's pixels
            called by an unseen name count against both.
        groups: name -> labels. ``seen`` and ``unseen`` are objects; ``stuff`` stands apart.

    Returns:
        Name -> mean IoU; when ``seen`` and ``unseen`` are both there also ``harmonic``, their
        harmonic mean 2su / (s + u), 0 when both are 0.
    """
    means = {}
    for name, labels in groups.items():
        members = np.zeros(result.iou.shape, dtype=bool)
        members[list(labels)] = True
        means[name] = _ratio(
            result.iou[members & result.in_truth].sum(), (members & result.in_either).sum()
        )
    if "seen" in means and "unseen" in means:
        seen, unseen = means["seen"], means["unseen"]
        means["harmonic"] = 0.0 if seen + unseen == 0 else 2 * seen * unseen / (seen + unseen)
    return means


@dataclass(frozen=True)
class Mistake:
    """Pixels of one class that got another.

    Attributes:
        truth, predicted: labels; ``predicted`` is ``NO_CLASS`` where no class was predicted.
        pixels: how many.
        share: of the true class's pixels, 0..1.
    """

    truth: int
    predicted: int
    pixels: int
    share: float


def most_confused(confusion: np.ndarray, count: int) -> list[Mistake]:
    """The up to ``count`` pairs of classes with the most wrong pixels, the largest first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    totals = confusion.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        Mistake(
            int(truth),
            NO_CLASS if predicted == len(confusion) else int(predicted),
            int(wrong[truth, predicted]),
            float(wrong[truth, predicted] / totals[truth]),
        )
        for truth, predicted in pairs
        if wrong[truth, predicted]
    ]


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator) / float(denominator) if denominator else float("nan")
