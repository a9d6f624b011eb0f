"""detectron2's evaluator over the confusion matrix."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ovseg.data.datasets import class_groups, dataset_classes, ignore_label
from ovseg.data.label_maps import matching_truth, truth_place, way_out
from ovseg.data.segment_maps import thing_classes
from ovseg.errors import UserError
from ovseg.evaluation.confusion import NO_CLASS, new_confusion, scores, update_confusion
from ovseg.evaluation.pictures import ExtremeImages
from ovseg.evaluation.report import SEGMENT_TITLES, Report
from ovseg.evaluation.segments import SegmentScores

logger = logging.getLogger(__name__)


class SemSegEvaluator(DatasetEvaluator):
    """Compares label maps with ground truth, over any number of processes.

    An image that cannot be evaluated is logged, counted and left out; the others are evaluated.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | os.PathLike[str] | None = None,
        num_pictures: int = 0,
        panoptic: bool = False,
        instances: bool = False,
    ) -> None:
        """Evaluate on a registered data set.

        Args:
            dataset_name: its metadata give classes, ignored label and, if any, groups of classes.
            output_dir: where ``results.json``, ``results.md`` and ``chart.png`` are written; None:
                nowhere.
            num_pictures: save so many of the worst and of the best images, by the mIoU of each
                alone, in the folder ``pictures`` of ``output_dir``.
            panoptic: evaluate ``panoptic_seg`` too; the data set has ground truth for it.
            instances: evaluate ``instances`` too, likewise.
        """
        self.dataset_name = dataset_name
        self.class_names = dataset_classes([dataset_name])
        self.ignore_label = ignore_label(dataset_name)
        self.groups = class_groups(dataset_name)
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.num_pictures = 0 if output_dir is None else num_pictures
        self.panoptic = panoptic
        self.instances = instances
        named = thing_classes(dataset_name)
        self.things = [i for i, name in enumerate(self.class_names) if name in named]
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.confusion = new_confusion(len(self.class_names))
        self.num_images = 0
        self.failures: list[str] = []
        self._extremes = ExtremeImages(self.num_pictures)
        self._segments = SegmentScores(
            self.class_names, self.things, self.ignore_label, self.groups
        )

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count a batch.

        Args:
            inputs: dataset dicts, see :func:`ovseg.data.label_maps.read_truth`; or with ``error``,
                a line that says why the image could not be segmented.
            outputs: dicts with ``labels`` (H, W), integer, ``NO_CLASS`` where there is none; or
                with ``sem_seg`` scores (C, H, W), whose argmax is taken; what comes after the
                scores of the classes stands for none. H and W are the file's. For segments also
                ``panoptic_seg`` and ``instances``, see :mod:`ovseg.modeling.panoptic`.
        """
        for example, output in zip(inputs, outputs, strict=True):
            try:
                if "error" in example:
                    raise UserError(example["error"])
                self._count(example, output)
            except UserError as error:
                line = " ".join(f"data set {self.dataset_name}: {error}".split())
                logger.error("%s (left out)", line)
                self.failures.append(line)

    def _count(self, example: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        labels = self._labels(output)
        truth = matching_truth(example, labels.shape)
        image = None
        if self.panoptic or self.instances:
            # before anything is counted, since an image is left out of all scores or of none
            image = self._segments.look(example, output)
        confusion = new_confusion(len(self.class_names)) if self.num_pictures else self.confusion
        count_labels(confusion, labels, truth, example, self.ignore_label)
        if self.num_pictures:
            self.confusion += confusion
            self._extremes.offer(scores(confusion).miou, example, labels)
        if image is not None:
            self._segments.images.append(image)
        self.num_images += 1

    def _labels(self, output: Mapping[str, Any]) -> np.ndarray:
        if "labels" in output:
            return torch.as_tensor(output["labels"]).cpu().numpy()
        labels = output["sem_seg"].argmax(dim=0)
        return labels.masked_fill(labels >= len(self.class_names), NO_CLASS).cpu().numpy()

    def evaluate(self) -> dict[str, Any] | None:
        """Gather all processes' counts, log tables, and write results and pictures.

        Returns:
            On the main process ``{"sem_seg": {name: percent}}``, where they are asked for such
            figures as ``panoptic_seg`` and ``segm`` too, and when images were left out their number
            as ``failed_images``; None on the others.

        Raises:
            UserError: every image was left out, so that there is no result.
        """
        if self.output_dir is not None and self.num_pictures:
            folder = self.output_dir / "pictures"
            self._extremes.save(folder, self.class_names, self.ignore_label)
        segments = self._segments.evaluate(self.panoptic, self.instances)
        gathered = comm.gather((self.confusion, self.num_images, self.failures))
        if not comm.is_main_process():
            return None
        num_images = sum(count for _, count, _ in gathered)
        failures = [line for _, _, lines in gathered for line in lines]
        if failures and not num_images:
            raise UserError(
                f"no image could be evaluated: all {len(failures)} were left out; the first: "
                f"{failures[0]}"
            )
        report = Report(
            dataset=self.dataset_name,
            class_names=self.class_names,
            confusion=np.sum([confusion for confusion, _, _ in gathered], axis=0),
            num_images=num_images,
            failures=failures,
            groups=self.groups,
            segments=segments,
        )
        logger.info("Classes of %s:\n%s", self.dataset_name, report.class_table())
        logger.info("%s, %d images:\n%s", report.dataset, report.num_images, report.means_table())
        for part in report.segments:
            logger.info("%s:\n%s", SEGMENT_TITLES[part], report.segments_table(part))
        if self.output_dir is not None:
            report.write(self.output_dir)
            logger.info("Results are in %s", self.output_dir)
        results: dict[str, Any] = {"sem_seg": report.percents(), **segments}
        if report.failures:
            results["failed_images"] = len(report.failures)
        return results


def count_labels(
    confusion: np.ndarray,
    labels: np.ndarray,
    truth: np.ndarray,
    example: Mapping[str, Any],
    ignore_label: int,
) -> None:
    """:func:`update_confusion` for the image of a dataset dict.

    Raises:
        UserError: a label has no class; nothing is counted then.
    """
    try:
        update_confusion(confusion, labels, truth, ignore_label)
    except ValueError as error:
        raise UserError(
            f"{truth_place(example)}: {error}, and not the ignored {ignore_label}; "
            f"{way_out(example)}"
        ) from error
