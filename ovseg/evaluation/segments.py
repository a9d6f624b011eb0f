"""Panoptic quality and average precision of segments.

The protocols are COCO's: panoptic quality by hotcoco, whose figures are panopticapi's, and average
precision of masks by pycocotools. Images are kept as run-length encoded masks.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.utils import comm
from pycocotools import mask as coco_mask

from ovseg.data.segment_maps import read_segments
from ovseg.errors import UserError

if TYPE_CHECKING:
    from pycocotools.coco import COCO

Annotation = dict[str, Any]

#: COCO's twelve numbers of a COCOeval that results are made of, and where they stand
_AP_PLACES = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5}
#: groups of classes whose means are given besides those of things and stuff
_GROUPS = ("seen", "unseen")


@dataclass
class SegmentedImage:
    """What is true of an image and what was found, as COCO annotations without ids.

    Attributes:
        size: height and width.
        truth: its true segments.
        panoptic: segments that were found.
        instances: instances that were found.
    """

    size: tuple[int, int]
    truth: list[Annotation]
    panoptic: list[Annotation] = field(default_factory=list)
    instances: list[Annotation] = field(default_factory=list)


class SegmentScores:
    """Collects the segments of a data set's images, over any number of processes."""

    def __init__(
        self,
        class_names: Sequence[str],
        things: Iterable[int],
        ignore_label: int,
        groups: Mapping[str, Sequence[int]],
    ) -> None:
        """
        Args:
            class_names: of the data set.
            things: the classes that are things.
            ignore_label: label of pixels that count nowhere.
            groups: name of a group of classes -> their labels; "seen" and "unseen" get a mean.
        """
        self.class_names = list(class_names)
        self.things = frozenset(things)
        self.ignore_label = ignore_label
        self.groups = {name: groups[name] for name in _GROUPS if name in groups}
        self.images: list[SegmentedImage] = []

    def look(self, example: Mapping[str, Any], output: Mapping[str, Any]) -> SegmentedImage:
        """What is true of an image and what a model found; it does not count yet.

        Args:
            example: see :func:`ovseg.data.segment_maps.read_segments`.
            output: with ``panoptic_seg`` or ``instances`` or both, as detectron2 has them.

        Raises:
            UserError: ground truth is missing or broken.
        """
        truth = read_segments(example, self.things, self.ignore_label)
        image = SegmentedImage(truth.ids.shape, _of_map(truth.ids, truth.labels))
        for annotation, number in zip(image.truth, truth.labels, strict=True):
            annotation["iscrowd"] = int(number in truth.crowds)
        if "panoptic_seg" in output:
            ids, segments = output["panoptic_seg"]
            labels = {segment["id"]: segment["category_id"] for segment in segments}
            image.panoptic = _of_map(torch.as_tensor(ids).cpu().numpy(), labels)
        if "instances" in output:
            found = output["instances"].to("cpu")
            image.instances = _annotations(found.pred_masks.numpy(), found.pred_classes.tolist())
            for annotation, score in zip(image.instances, found.scores.tolist(), strict=True):
                annotation["score"] = score
        return image

    def evaluate(self, panoptic: bool, instances: bool) -> dict[str, OrderedDict[str, float]]:
        """Gather all processes' images and score them.

        Returns:
            On the main process ``panoptic_seg`` and ``segm``, as far as they are asked for, each
            with its figures in percent, NaN for what does not exist; empty on the others.
        """
        if not (panoptic or instances):
            return {}
        gathered = comm.gather(self.images)
        if not comm.is_main_process():
            return {}
        images = [image for part in gathered for image in part]
        results = {}
        if panoptic:
            results["panoptic_seg"] = self._panoptic_quality(images)
        if instances:
            results["segm"] = self._average_precision(images)
        return results

    def _panoptic_quality(self, images: Sequence[SegmentedImage]) -> OrderedDict[str, float]:
        from hotcoco.panoptic import PanopticEval

        truth = self._dataset(images, [image.truth for image in images])
        found = self._dataset(images, [image.panoptic for image in images])
        evaluation = PanopticEval(truth, found)
        evaluation.evaluate()
        results = evaluation.results()
        percents = OrderedDict(
            (f"{name}{suffix}", _percent(results[part][name.lower()]))
            for part, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st"))
            for name in ("PQ", "SQ", "RQ")
        )
        for group, labels in self.groups.items():
            values = [results["per_class"][label + 1]["pq"] for label in labels]
            percents[f"PQ_{group}"] = _mean_percent(np.array(values))
        return percents

    def _average_precision(self, images: Sequence[SegmentedImage]) -> OrderedDict[str, float]:
        from pycocotools.cocoeval import COCOeval  # with matplotlib, which takes its time

        of_things = [
            [a for a in image.truth if a["category_id"] - 1 in self.things] for image in images
        ]
        with contextlib.redirect_stdout(io.StringIO()):  # it prints tables of its own
            truth = _coco(self._dataset(images, of_things))
            found = _coco(self._dataset(images, [image.instances for image in images]))
            evaluation = COCOeval(truth, found, "segm")
            evaluation.params.catIds = [label + 1 for label in sorted(self.things)]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        percents = OrderedDict(
            (name, _percent(evaluation.stats[place])) for name, place in _AP_PLACES.items()
        )
        # over all thresholds, recalls and classes, for objects of any size and most detections
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        for group, labels in self.groups.items():
            members = [label in labels for label in sorted(self.things)]
            percents[f"AP_{group}"] = _mean_percent(precision[:, :, members])
        return percents

    def _dataset(
        self, images: Sequence[SegmentedImage], annotations: Sequence[Sequence[Annotation]]
    ) -> dict[str, Any]:
        """A COCO file's content; ids are counted from 1, since 0 is none to pycocotools."""
        listed = [
            {**annotation, "image_id": number}
            for number, of_image in enumerate(annotations, start=1)
            for annotation in of_image
        ]
        return {
            "images": [
                {"id": number, "height": image.size[0], "width": image.size[1]}
                for number, image in enumerate(images, start=1)
            ],
            "categories": [
                {"id": label + 1, "name": name, "isthing": int(label in self.things)}
                for label, name in enumerate(self.class_names)
            ],
            "annotations": [
                {**annotation, "id": number} for number, annotation in enumerate(listed, start=1)
            ],
        }


def check_panoptic_quality() -> None:
    """Find out before any work whether panoptic quality can be computed.

    Raises:
        UserError: the package for it is not installed.
    """
    if importlib.util.find_spec("hotcoco") is None:
        raise UserError(
            "MODEL.MASK_FORMER.TEST.PANOPTIC_ON True: panoptic quality needs the package hotcoco; "
            "pip install hotcoco"
        )


def _of_map(ids: np.ndarray, labels: Mapping[int, int]) -> list[Annotation]:
    masks = ids[None] == np.array(list(labels), ids.dtype)[:, None, None]
    return _annotations(masks, list(labels.values()))


def _annotations(masks: np.ndarray, labels: Sequence[int]) -> list[Annotation]:
    """COCO annotations without ids of masks, bool (N, H, W)."""
    codes = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    areas, boxes = coco_mask.area(codes).tolist(), coco_mask.toBbox(codes).tolist()
    return [
        {
            "category_id": label + 1,
            "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
            "area": area,
            "bbox": box,
            "iscrowd": 0,
        }
        for label, code, area, box in zip(labels, codes, areas, boxes, strict=True)
    ]


def _coco(content: dict[str, Any]) -> COCO:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco


def _percent(value: float) -> float:
    """A fraction in percent; COCO's -1, for what does not exist, becomes NaN."""
    return 100 * float(value) if value >= 0 else float("nan")


def _mean_percent(values: np.ndarray) -> float:
    there = values[values >= 0]
    return 100 * float(there.mean()) if there.size else float("nan")
