"""Scores of a segmentation: pure functions on a confusion matrix, and detectron2's evaluator."""

from ovseg.evaluation.background import CountInBackground
from ovseg.evaluation.confusion import (
    Mistake,
    Scores,
    group_miou,
    most_confused,
    new_confusion,
    scores,
    update_confusion,
)
from ovseg.evaluation.report import Report
from ovseg.evaluation.sem_seg import SemSegEvaluator

__all__ = [
    "CountInBackground",
    "Mistake",
    "Report",
    "Scores",
    "SemSegEvaluator",
    "group_miou",
    "most_confused",
    "new_confusion",
    "scores",
    "update_confusion",
]
