"""Raw archive -> prepared files -> registered data set -> scores, against NumPy on the raw archive.

What the expected numbers come from shares nothing with the library: raw files are decoded and
relabelled here, and scores are counted by sets of pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from conftest import ROOT, prepare
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin import register_all_ade20k
from detectron2.modeling import build_model
from PIL import Image
from torch import nn

from ovseg.data.datasets import register_split
from ovseg.data.splits import data_root, find_split
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.config import setup_cfg
from ovseg.engine.trainer import Trainer
from ovseg.evaluation import SemSegEvaluator
from tools import make_sample_archives as archives

IGNORED = -1
# the registered data set -> the script that prepares it
SCRIPTS = {
    "coco_2017_val_stuff_sem_seg": "coco_stuff_sem_seg",
    "ade20k_sem_seg_val": "ade20k_sem_seg",
    "ade20k_full_sem_seg_val": "ade20k_full_sem_seg",
    "pascal_context_59_sem_seg_val": "pascal_context",
    "pascal_context_459_sem_seg_val": "pascal_context",
    "pascalvoc20_sem_seg_val": "voc_sem_seg",
}


# --- the truth of each archive, from its raw files


def class_list(name: str) -> list[Any]:
    return json.loads((ROOT / f"ovseg/data/vocabularies/{name}.json").read_text(encoding="utf-8"))


def each(numbers: np.ndarray, label_of: Callable[[int], int]) -> np.ndarray:
    """``label_of`` applied to every pixel."""
    values, places = np.unique(numbers, return_inverse=True)
    return np.array([label_of(int(value)) for value in values])[places].reshape(numbers.shape)


def coco_truth(root: Path) -> dict[str, np.ndarray]:
    ids = [number for number, _ in class_list("coco_stuff_171")]
    truth = {}
    for path in (root / "coco/stuffthingmaps/val2017").iterdir():
        stored = np.array(Image.open(path)).astype(int)
        truth[path.stem] = each(stored, lambda v: ids.index(v + 1) if v != 255 else IGNORED)
    return truth


def ade_truth(root: Path) -> dict[str, np.ndarray]:
    folder = root / "ADEChallengeData2016/annotations/validation"
    return {path.stem: np.array(Image.open(path)).astype(int) - 1 for path in folder.iterdir()}


def ade_full_truth(root: Path) -> dict[str, np.ndarray]:
    label_of = {number: i for i, (number, _) in enumerate(class_list("ade20k_full_847"))}
    truth = {}
    for path in (root / "ADE20K_2021_17_01/images/ADE/validation").rglob("*_seg.png"):
        red, green, _ = np.moveaxis(np.array(Image.open(path)).astype(int), 2, 0)
        objects = red // 10 * 256 + green
        height, width = objects.shape
        if min(height, width) > 512:
            scale = 512 / min(height, width)
            new = (round(height * scale), round(width * scale))
            rows = np.arange(new[0]) * height // new[0]
            columns = np.arange(new[1]) * width // new[1]
            objects = objects[rows][:, columns]
        name = path.stem.removesuffix("_seg")
        truth[name] = each(objects, lambda v: label_of.get(v, IGNORED))
    return truth


def context_truth(root: Path, names: list[str]) -> dict[str, np.ndarray]:
    voc = root / "VOCdevkit/VOC2010"
    labels = {}
    for line in (voc / "labels.txt").read_text().splitlines():
        number, name = line.split(": ")
        labels[int(number)] = names.index(name) if name in names else IGNORED
    labels[0] = IGNORED
    return {
        name: each(scipy.io.loadmat(voc / f"trainval/{name}.mat")["LabelMap"], labels.__getitem__)
        for name in (voc / "pascalcontext_val.txt").read_text().split()
    }


def voc_truth(root: Path) -> dict[str, np.ndarray]:
    voc = root / "VOCdevkit/VOC2012"
    truth = {}
    for name in (voc / "ImageSets/Segmentation/val.txt").read_text().split():
        stored = np.array(Image.open(voc / f"SegmentationClassAug/{name}.png")).astype(int)
        truth[name] = np.where(stored == 255, 0, stored) - 1
    return truth


TRUTHS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    "coco_2017_val_stuff_sem_seg": coco_truth,
    "ade20k_sem_seg_val": ade_truth,
    "ade20k_full_sem_seg_val": ade_full_truth,
    "pascal_context_59_sem_seg_val": lambda root: context_truth(
        root, class_list("pascal_context_59")
    ),
    "pascal_context_459_sem_seg_val": lambda root: context_truth(
        root, class_list("pascal_context_459")
    ),
    "pascalvoc20_sem_seg_val": voc_truth,
}


def expected_scores(
    truth: dict[str, np.ndarray], labels: dict[str, np.ndarray], num_classes: int
) -> dict[str, float]:
    said = np.concatenate([labels[name].ravel() for name in truth])
    true = np.concatenate([truth[name].ravel() for name in truth])
    said, true = said[true != IGNORED], true[true != IGNORED]
    ious, named = {}, 0
    for c in range(num_classes):
        either = np.count_nonzero((true == c) | (said == c))
        named += either > 0
        if (true == c).any():
            ious[c] = np.count_nonzero((true == c) & (said == c)) / either
    return {
        "mIoU": 100 * sum(ious.values()) / named,
        "mIoU_detectron2": 100 * sum(ious.values()) / len(ious),
        "pACC": 100 * float((said == true).mean()),
        "absent classes": num_classes - len(ious),
    }


# --- the whole way


class Recorder(nn.Module):
    """Hands on what a model says and keeps the label maps by the images' names."""

    def __init__(self, model: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        super().__init__()
        self.model = model
        self.labels: dict[str, np.ndarray] = {}

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        outputs = self.model(inputs)
        for example, output in zip(inputs, outputs, strict=True):
            self.labels[Path(example["file_name"]).stem] = output["labels"].numpy()
        return outputs


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All archives, prepared by the scripts, and the data sets registered there as ``try_*``."""
    root = tmp_path_factory.mktemp("archives")
    archives.main([str(root)])
    for script in set(SCRIPTS.values()):
        assert prepare(script, root, "--split", "val") == 0
    ade = ("ade20k_sem_seg_train", "ade20k_sem_seg_val")

    def register_ade(folder: Path) -> None:
        for name in ade:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        register_all_ade20k(str(folder))

    register_ade(root)
    ours = [name for name in SCRIPTS if name not in ade]
    for name in ours:
        register_split(replace(find_split(name), name=f"try_{name}"), root)
    yield root
    register_ade(data_root())
    for name in ours:
        DatasetCatalog.remove(f"try_{name}")
        MetadataCatalog.remove(f"try_{name}")


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> CfgNode:
    opts = {
        "MODEL.WEIGHTS": "ovseg://ovseg_tiny.pth",
        "MODEL.DEVICE": "cpu",
        # one text a class: 847 are enough to wait for
        "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES": "predefined",
        "DATALOADER.NUM_WORKERS": 0,
        "OUTPUT_DIR": tmp_path_factory.mktemp("output"),
    }
    pairs = [part for key, value in opts.items() for part in (key, str(value))]
    return setup_cfg(ROOT / "configs" / "ovseg_tiny.yaml", pairs)


@pytest.fixture(scope="module")
def embedded(cfg: CfgNode) -> nn.Module:
    model = build_model(cfg)
    OVSegCheckpointer(model, cfg=cfg, trained=True).load(cfg.MODEL.WEIGHTS)
    return model.eval()


def evaluate(cfg: CfgNode, name: str, model: nn.Module) -> dict[str, float]:
    name = name if name.startswith("ade20k_sem") else f"try_{name}"
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST = (name,)
    # without a folder for files: the charts take longer than all the rest
    scores: dict[str, float] = Trainer.test(cfg, model, [SemSegEvaluator(name)])["sem_seg"]
    absent = sum(math.isnan(value) for key, value in scores.items() if key.startswith("IoU-"))
    keys = ("mIoU", "mIoU_detectron2", "pACC")
    return {key: scores[key] for key in keys} | {"absent classes": absent}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scores_of_the_embedded_model(
    name: str, prepared: Path, cfg: CfgNode, embedded: nn.Module
) -> None:
    model = Recorder(embedded)
    scores = evaluate(cfg, name, model)
    num_classes = len(MetadataCatalog.get(name).stuff_classes)
    assert len(model.labels) == len(archives.SIZES)
    assert scores == pytest.approx(
        expected_scores(TRUTHS[name](prepared), model.labels, num_classes)
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_scores_of_a_model_that_is_right_on_three_pixels_of_four(
    name: str, prepared: Path, cfg: CfgNode
) -> None:
    """The embedded model is right nearly nowhere on patches of colour; this one is."""
    truth = TRUTHS[name](prepared)
    num_classes = len(MetadataCatalog.get(name).stuff_classes)
    rng = np.random.default_rng(0)
    labels = {}
    for image, classes in truth.items():
        noise = rng.integers(0, min(num_classes, 40), classes.shape)
        right = (classes != IGNORED) & (rng.random(classes.shape) < 0.75)
        labels[image] = np.where(right, classes, noise)

    def say(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"labels": torch.tensor(labels[Path(x["file_name"]).stem])} for x in inputs]

    scores = evaluate(cfg, name, Recorder(say))
    assert scores == pytest.approx(expected_scores(truth, labels, num_classes))
    assert 73 < scores["pACC"] < 85
    assert scores["mIoU"] > 8
