"""The analysis that motivates the paper (its section 1): are masks or classes what is missing?

True regions are classified by CLIP, on masked and on unmasked crops; predicted masks are given
their true classes; and both are compared with what the model does by itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image

from ovseg.data.datasets import class_groups, dataset_classes, ignore_label, load_dataset
from ovseg.data.label_maps import matching_truth, read_truth
from ovseg.data.loader import Example
from ovseg.data.proposal_files import evaluation_mapper
from ovseg.engine.resumable import Counts, RegionCounter, model_settings, resumable_pass
from ovseg.engine.true_regions import filled_boxes, region_masks
from ovseg.errors import UserError
from ovseg.evaluation.confusion import NO_CLASS, new_confusion, scores
from ovseg.evaluation.oracles import IOU_BINS, SETTINGS, Analysis, pairwise_iou
from ovseg.evaluation.pictures import draw_comparison
from ovseg.evaluation.sem_seg import count_labels
from ovseg.modeling import OVSeg
from ovseg.structures import Classified, GivenProposals, Regions
from ovseg.utils.images import read_image
from ovseg.utils.io import atomic_path

# a pixel of the resized image belongs to a true region when more than half of it does
_HALF = 0.5


class AnalysisCounter(RegionCounter):
    """Counts images in every setting of :data:`ovseg.evaluation.oracles.SETTINGS`."""

    def __init__(self, model: OVSeg, dataset_name: str, num_images: int) -> None:
        """Count with ``model``, which is in evaluation mode, up to ``num_images`` images."""
        classes = len(dataset_classes([dataset_name]))
        self.counts = Counts(
            {
                "confusion": np.zeros((len(SETTINGS), classes, classes + 1), np.int64),
                "regions": np.zeros(classes, np.int64),
                "right": np.zeros((2, classes), np.int64),
                "best_iou": np.zeros((classes, IOU_BINS), np.int64),
                # 1 + mIoU of each image; 0 stands for not counted
                "image_score": np.zeros(num_images),
            }
        )
        self._model = model
        self._classes = classes
        self._ignore_label = ignore_label(dataset_name)

    def count(self, example: Example, regions: Regions) -> None:
        """Count one image."""
        truth = matching_truth(example, (example["height"], example["width"]))
        present = np.unique(truth[truth != self._ignore_label]).astype(np.int64)
        # counts nothing; raises for labels outside the classes, before anything is counted
        nothing = np.full(truth.shape, NO_CLASS)
        count_labels(new_confusion(self._classes), nothing, truth, example, self._ignore_label)
        arrays = self.counts.arrays
        arrays["regions"][present] += 1
        maps = {**self._oracle_masks(example, truth, present)}
        maps.update(self._predicted_masks(example, regions, truth, present))
        for name, labels in maps.items():
            place = list(SETTINGS).index(name)
            count_labels(arrays["confusion"][place], labels, truth, example, self._ignore_label)
        alone = new_confusion(self._classes)
        count_labels(alone, maps["ensemble"], truth, example, self._ignore_label)
        arrays["image_score"][example["position"]] = 1 + scores(alone).miou if alone.any() else 0

    def _oracle_masks(
        self, example: Example, truth: np.ndarray, present: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Label maps of true regions with the classes that CLIP gives them."""
        text = self._model.text(example["class_names"])
        masks = region_masks(truth, present).float()
        true_regions = self._model.propose([{**example, "proposals": GivenProposals(masks)}])[0]
        boxes = replace(true_regions, masks=filled_boxes(true_regions.masks > _HALF).float())
        maps = {}
        for kind, (name, seen) in enumerate(zip(SETTINGS, (true_regions, boxes), strict=False)):
            encoded = self._model.encode_regions(seen, _HALF)
            assert encoded.crops is not None
            clip = self._model.classify_crops(encoded.crops, text)
            best = text.vocabulary.class_labels(clip.class_probs.argmax(dim=1))
            named = np.full(len(present), NO_CLASS)
            named[clip.valid.cpu().numpy()] = best.cpu().numpy()
            self.counts.arrays["right"][kind, present] += named == present
            maps[name] = _painted(truth, present, named)
        return maps

    def _predicted_masks(
        self, example: Example, regions: Regions, truth: np.ndarray, present: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Label maps of predicted masks with true classes, and with the model's own."""
        model = self._model
        iou = self._fit(regions, truth, present)
        best = iou.max(axis=0) if len(iou) else np.zeros(len(present))
        bins = np.floor(100 * best + 1e-4).astype(int)
        self.counts.arrays["best_iou"][present, bins] += 1
        text = model.text(example["class_names"])
        probs = model.classify_queries(regions, text)
        encoded = model.encode_regions(regions)
        alternatives = {
            "CLIP alone": model.classify(encoded, text, 0),
            "ensemble": model.classify(encoded, text),
        }
        if probs is not None:
            alternatives["MaskFormer alone"] = model.combine(probs, None)
        maps = model.label_maps(example, regions, list(alternatives.values())).cpu().numpy()
        labels = dict(zip(alternatives, maps, strict=True))
        if len(iou) and len(present):
            true_classes = _true_classes(iou, present, self._classes, model.device)
            plain = {**example, "class_names": text.vocabulary.names}  # a word is a class
            oracle = model.label_maps(plain, regions, [true_classes])[0].cpu().numpy()
            labels["predicted masks, oracle classes"] = oracle
        else:
            labels["predicted masks, oracle classes"] = np.full(truth.shape, NO_CLASS)
        return labels

    def _fit(self, regions: Regions, truth: np.ndarray, present: np.ndarray) -> np.ndarray:
        """IoU (Q, N) of predicted masks and true regions, at the size that the model sees.

        Pixels that are ignored in the truth belong to no mask.
        """
        height, width = regions.masks.shape[1:]
        seen = cv2.resize(
            truth.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
        ).flatten()
        counted = seen != self._ignore_label
        masks = (regions.masks > self._model.mask_threshold).flatten(1).cpu().numpy()
        return pairwise_iou(masks[:, counted], seen[counted] == present[:, None])


def _painted(truth: np.ndarray, present: np.ndarray, named: np.ndarray) -> np.ndarray:
    """A label map that has in each true region the label ``named`` for it."""
    labels = np.full(truth.shape, NO_CLASS, np.int32)
    for label, name in zip(present, named, strict=True):
        labels[truth == label] = name
    return labels


def _true_classes(
    iou: np.ndarray, present: np.ndarray, classes: int, device: torch.device
) -> Classified:
    """Each mask with the class of the region that it fits best, weighted by that IoU."""
    probs = np.zeros((len(iou), classes), np.float32)
    best = iou.argmax(axis=1)
    probs[np.arange(len(iou)), present[best]] = iou.max(axis=1)
    queries = torch.arange(len(iou), device=device)
    return Classified(torch.from_numpy(probs).to(device), queries)


def analyze_dataset(
    cfg: CfgNode, model: OVSeg, dataset_name: str, folder: Path, *, limit: int | None, worst: int
) -> Analysis | None:
    """Analyse one data set, over all processes.

    Args:
        cfg: how images are read.
        model: with its weights, in evaluation mode.
        dataset_name: a registered data set.
        folder: for unfinished counts and the drawings of the worst images.
        limit: only the first so many images.
        worst: how many drawings.

    Returns:
        On the main process the analysis; None on the others.

    Raises:
        UserError: there is no labelled pixel.
    """
    examples = load_dataset(dataset_name, unpaired=True)[:limit]
    counter = AnalysisCounter(model, dataset_name, len(examples))
    settings = {"analysis": limit, **model_settings(cfg)}
    counts = resumable_pass(
        cfg, dataset_name, counter.counts, counter,
        folder=folder / "unfinished", settings=settings, limit=limit,
    )  # fmt: skip
    if counts is None:
        return None
    if not counts.arrays["confusion"].any():
        raise UserError(f"data set {dataset_name}: there is no ground truth; choose another one")
    image_score = counts.arrays["image_score"]
    order = [int(i) for i in np.argsort(image_score, kind="stable") if image_score[i] > 0][:worst]
    for old in (folder / "worst").glob("*.jpg"):  # of an earlier analysis
        old.unlink()
    for number, place in enumerate(order, start=1):
        stem = Path(examples[place]["file_name"]).stem
        strip = _strip(cfg, model, dataset_name, examples[place], float(image_score[place]) - 1)
        with atomic_path(folder / "worst" / f"{number:02d}_{stem}.jpg") as path:
            Image.fromarray(strip).save(path, quality=90)
    return Analysis(
        dataset=dataset_name,
        class_names=dataset_classes([dataset_name]),
        groups=class_groups(dataset_name),
        num_images=counts.images,
        failures=counts.failures,
        confusion=counts.arrays["confusion"],
        regions=counts.arrays["regions"],
        right=counts.arrays["right"],
        best_iou=counts.arrays["best_iou"],
        worst=[(examples[i]["file_name"], float(image_score[i]) - 1) for i in order],
    )


@torch.inference_mode()
def _strip(
    cfg: CfgNode, model: OVSeg, dataset_name: str, example: Example, score: float
) -> np.ndarray:
    """The image, its truth and the ensemble's labels of an image beside each other."""
    truth = read_truth(example).astype(np.int32)
    truth[truth == ignore_label(dataset_name)] = NO_CLASS
    labels = model([evaluation_mapper(cfg, dataset_name)(example)])[0]["labels"].cpu().numpy()
    return draw_comparison(
        read_image(example["file_name"]),
        truth,
        labels,
        dataset_classes([dataset_name]),
        f"prediction, mIoU {100 * score:.1f} %",
    )
