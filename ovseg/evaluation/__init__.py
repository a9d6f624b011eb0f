"""Scores of a segmentation: pure functions on a confusion matrix, and detectron2's evaluator."""

from ovseg.evaluation.confusion import Scores, group_miou, new_confusion, scores, update_confusion
from ovseg.evaluation.sem_seg import SemSegEvaluator

__all__ = [
    "Scores",
    "SemSegEvaluator",
    "group_miou",
    "new_confusion",
    "scores",
    "update_confusion",
]
