"""detectron2's evaluator over the confusion matrix."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from ovseg.data.datasets import dataset_classes
from ovseg.data.images import read_labels
from ovseg.errors import UserError
from ovseg.evaluation.confusion import (
    NO_CLASS,
    Scores,
    group_miou,
    new_confusion,
    scores,
    update_confusion,
)
from ovseg.utils.io import atomic_path

logger = logging.getLogger(__name__)

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
}


class SemSegEvaluator(DatasetEvaluator):
    """Compares label maps with ground truth, over any number of processes."""

    def __init__(self, dataset_name: str, output_dir: str | os.PathLike[str] | None = None) -> None:
        """Evaluate on a registered data set.

        Args:
            dataset_name: its metadata give classes, ignored label and, if any, groups of classes.
            output_dir: where ``results.json`` is written; None: nowhere.
        """
        metadata = MetadataCatalog.get(dataset_name)
        self.dataset_name = dataset_name
        self.class_names = dataset_classes([dataset_name])
        self.ignore_label = int(metadata.get("ignore_label", 255))
        self.groups: dict[str, Sequence[int]] = metadata.get("class_groups", {})
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.confusion = new_confusion(len(self.class_names))
        self.num_images = 0

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count a batch.

        Args:
            inputs: dataset dicts with ``sem_seg_file_name``.
            outputs: dicts with ``labels`` (H, W), integer, ``NO_CLASS`` where there is none; or
                with ``sem_seg`` (C, H, W) scores, whose argmax is taken. H and W are the file's.

        Raises:
            UserError: the label map is missing or broken, sizes differ, or a label has no class.
        """
        for example, output in zip(inputs, outputs, strict=True):
            truth = read_labels(example["sem_seg_file_name"])
            try:
                update_confusion(self.confusion, self._labels(output), truth, self.ignore_label)
            except ValueError as error:
                raise UserError(
                    f"data set {self.dataset_name}: {example['sem_seg_file_name']}: {error}; "
                    "prepare the data set again, or correct its list of classes"
                ) from error
            self.num_images += 1

    def _labels(self, output: dict[str, Any]) -> np.ndarray:
        if "labels" in output:
            labels = torch.as_tensor(output["labels"])
        else:
            labels = output["sem_seg"].argmax(dim=0)
        array = labels.to("cpu", torch.int32).numpy()
        # with a single class the model adds one for everything else: that is no class
        extra = array == len(self.class_names)
        return np.where(extra, NO_CLASS, array) if extra.any() else array

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Gather all processes' counts, log a table and write ``results.json``.

        Returns:
            ``{"sem_seg": {name: percent}}`` on the main process, None on the others.
        """
        gathered = comm.gather((self.confusion, self.num_images))
        if not comm.is_main_process():
            return None
        confusion = np.sum([part for part, _ in gathered], axis=0)
        num_images = sum(count for _, count in gathered)
        result = scores(confusion)
        means = self._means(result)
        logger.info("%s, %d images:\n%s", self.dataset_name, num_images, _means_table(means))
        logger.info("Classes of %s:\n%s", self.dataset_name, self._class_table(result))
        percents: OrderedDict[str, float] = OrderedDict(means)
        for kind, values in (("IoU", result.iou), ("ACC", result.acc)):
            for name, value in zip(self.class_names, values, strict=True):
                percents[f"{kind}-{name}"] = 100 * float(value)
        if self.output_dir is not None:
            self._write(percents, num_images)
        return {"sem_seg": percents}

    def _means(self, result: Scores) -> OrderedDict[str, float]:
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

    def _class_table(self, result: Scores, columns: int = 3) -> str:
        cells = [
            (name, 100 * iou, 100 * acc)
            for name, iou, acc, present in zip(
                self.class_names, result.iou, result.acc, result.in_truth, strict=True
            )
            if present
        ]
        rows = [
            [value for cell in cells[start : start + columns] for value in cell]
            for start in range(0, len(cells), columns)
        ]
        headers = ["class", "IoU", "ACC"] * min(columns, len(cells))
        return tabulate(rows, headers=headers, floatfmt=".1f", tablefmt="pipe")

    def _write(self, percents: dict[str, float], num_images: int) -> None:
        assert self.output_dir is not None
        document = {
            "dataset": self.dataset_name,
            "images": num_images,
            "percent": {  # json knows no NaN
                name: None if math.isnan(value) else value for name, value in percents.items()
            },
            "meaning": {name: MEANINGS[name] for name in percents if name in MEANINGS},
        }
        with atomic_path(self.output_dir / "results.json") as path:
            path.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")


def _means_table(means: dict[str, float]) -> str:
    rows = [[name, value, MEANINGS.get(name, "")] for name, value in means.items()]
    return tabulate(rows, headers=["score", "%", ""], floatfmt=".2f", tablefmt="pipe")
