"""The checkpoint that comes with the repository, on a frozen sample of test scenes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from detectron2.modeling import build_model

from ovseg import OVSeg
from ovseg.config import setup_cfg
from ovseg.data.class_lists import load_class_list
from ovseg.data.label_maps import read_labels
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.trainer import Trainer
from ovseg.predictor import Predictor
from ovseg.utils.images import read_image

CHECKPOINT = ROOT / "resources" / "ovseg_tiny.pth"
SAMPLE = ROOT / "tests" / "data" / "stickerscenes"
FIGURES = json.loads((SAMPLE / "figures.json").read_text())
OPTS = [
    "MODEL.WEIGHTS", "ovseg://ovseg_tiny.pth", "DATASETS.TEST", "stickerscenes_frozen",
    "MODEL.DEVICE", "cpu",
]  # fmt: skip
SEGMENTS = [
    "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "True", "MODEL.MASK_FORMER.TEST.INSTANCE_ON", "True",
]  # fmt: skip
# what each branch is called, and the config of it
BRANCHES = {
    "ensemble": SEGMENTS,
    "maskformer": ["MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE", "False"],
    "clip": ["MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT", "0.0"],
}


def load(cfg) -> OVSeg:
    model = build_model(cfg)
    checkpointer = OVSegCheckpointer(model, cfg=cfg, trained=True)
    checkpointer.load(cfg.MODEL.WEIGHTS)
    assert not list(checkpointer._missing)
    return model.eval()


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    output = str(tmp_path_factory.mktemp("output"))
    return setup_cfg(ROOT / "configs" / "ovseg_tiny.yaml", [*OPTS, "OUTPUT_DIR", output])


@pytest.fixture(scope="module")
def model(cfg) -> OVSeg:
    return load(cfg)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict[str, dict[str, float]]]:
    """What the ensemble, its segments too, and each branch alone score."""
    result = {}
    for branch, opts in BRANCHES.items():
        output = str(tmp_path_factory.mktemp(branch))
        opts = [*OPTS, *opts, "OUTPUT_DIR", output]
        cfg = setup_cfg(ROOT / "configs" / "ovseg_tiny.yaml", opts)
        result[branch] = Trainer.test(cfg, load(cfg))
    return result


@pytest.fixture(scope="module")
def measured(results) -> dict[str, float]:
    """mIoU of the ensemble and of each branch alone."""
    return {branch: result["sem_seg"]["mIoU"] for branch, result in results.items()}


@pytest.mark.parametrize("branch", BRANCHES)
def test_miou_is_the_committed_figure(measured, branch):
    assert measured[branch] == pytest.approx(FIGURES["mIoU"][branch], abs=1.0)


def test_panoptic_quality_and_average_precision_are_the_committed_figures(results):
    ensemble = results["ensemble"]
    assert ensemble["panoptic_seg"]["PQ"] == pytest.approx(FIGURES["PQ"], abs=1.0)
    assert ensemble["segm"]["AP"] == pytest.approx(FIGURES["AP"], abs=1.0)


def test_ensemble_is_better_than_each_branch_alone(measured):
    assert measured["ensemble"] > measured["maskformer"]
    assert measured["ensemble"] > measured["clip"]


def test_files_stay_small():
    assert CHECKPOINT.stat().st_size <= 20e6
    assert sum(file.stat().st_size for file in SAMPLE.rglob("*") if file.is_file()) <= 3e6


def test_reject_leaves_out_what_has_no_name(cfg, model):
    stem, words = "00114", ["painted wall", "carpet", "cupcake"]
    names = load_class_list("stickerscenes").names
    encoded = Predictor(cfg, model).encode(SAMPLE / "images" / f"{stem}.jpg")
    truth = read_labels(SAMPLE / "annotations" / f"{stem}.png")
    known = np.isin(truth, [names.index(word) for word in words])
    hidden = ~known & (truth != 255)  # a panda and a peach
    assert hidden.mean() > 0.2
    off, on = encoded.segment(words), encoded.segment(words, reject=0.1)
    assert (off.labels[hidden] >= 0).all()
    assert (on.labels[hidden] == -1).mean() > 0.9
    assert (on.labels == off.labels)[known].mean() > 0.9


@torch.no_grad()
def test_synonyms_mean_what_they_stand_for(model):
    vocabulary = load_class_list("stickerscenes")
    synonyms = {"automobile": "car", "aubergine": "eggplant", "honeybee": "bee"}
    text = model.clip_adapter.text_features([*vocabulary.names, *synonyms])[:-1]
    names, asked = text[: len(vocabulary.names)], text[len(vocabulary.names) :]
    best = (asked @ names.T).argmax(dim=1).tolist()
    assert [vocabulary.names[i] for i in best] == list(synonyms.values())


@pytest.mark.parametrize(
    "words",
    [["zyzzyva"], ["крокодил", "鳄鱼", "🐊"], ["word " * 200, "dog"], ["!", "?"]],
    ids=["unknown", "other scripts", "too long", "marks"],
)
def test_any_word_may_be_asked_for(words):
    predictor = Predictor.from_pretrained("tiny", device="cpu")
    image = read_image(sorted((SAMPLE / "images").iterdir())[0])
    prediction = predictor(image, words)
    assert prediction.labels.shape == image.shape[:2]
    assert np.isfinite(prediction.scores).all()
