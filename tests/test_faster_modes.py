"""The faster modes on the embedded model: what they leave out, and how much of the result stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode

from ovseg.config import setup_cfg
from ovseg.config.speed import speed_opts
from ovseg.data.datasets import load_dataset
from ovseg.data.mapper import EvaluationMapper
from ovseg.modeling import OVSeg
from ovseg.modeling.build import region_parts
from ovseg.predictor import Predictor

ADAPTER = "MODEL.CLIP_ADAPTER."
IMAGES = 6


def config(*opts: str) -> CfgNode:
    return setup_cfg("configs/ovseg_tiny.yaml", ["MODEL.DEVICE", "cpu", *opts])


@pytest.fixture(scope="module")
def inputs() -> list[dict[str, Any]]:
    mapper = EvaluationMapper(config(), "stickerscenes_frozen")
    examples = load_dataset("stickerscenes_frozen")[:IMAGES]
    return [{**mapper(example), "output": "labels"} for example in examples]


@torch.inference_mode()
def run(model: OVSeg, inputs: list[dict[str, Any]], *opts: str) -> tuple[float, torch.Tensor]:
    """The share of crops that CLIP sees, and all labels."""
    before = {name: getattr(model, name) for name in ("shared_pass", "crops_too", "crop_choice")}
    parts = region_parts(config(*opts).MODEL.CLIP_ADAPTER, model.clip_adapter)
    for name, part in parts.items():
        setattr(model, name, part)
    labels, seen, valid = [], 0, 0
    for one in inputs:
        regions = model.encode([one])[0]
        labels.append(model.segment(one, regions)["labels"].flatten())
        assert regions.crops is not None
        seen += int(regions.crops.encoded.sum()) if model.crops_too else 0
        valid += int(regions.crops.valid.sum())
    for name, part in before.items():
        setattr(model, name, part)
    return seen / valid, torch.cat(labels)


@pytest.fixture(scope="module")
def exact(embedded: Predictor, inputs) -> torch.Tensor:
    share, labels = run(embedded.model, inputs)
    assert share == 1
    return labels


@pytest.mark.parametrize(
    ("opts", "most_crops", "least_equal"),
    [
        (speed_opts("exact"), 1.0, 1.0),
        (speed_opts("fast"), 0.55, 0.93),
        (speed_opts("fastest"), 0.3, 0.88),
        ([f"{ADAPTER}REGION_ENCODER", "shared", f"{ADAPTER}SHARED_RESOLUTION", "128"], 0.0, 0.5),
        ([f"{ADAPTER}REGION_ENCODER", "both", f"{ADAPTER}SHARED_RESOLUTION", "128"], 0.6, 0.7),
    ],
    ids=["exact", "fast", "fastest", "shared", "both"],
)
def test_fewer_crops_and_much_the_same_labels(
    embedded: Predictor, inputs, exact, opts, most_crops, least_equal
) -> None:
    share, labels = run(embedded.model, inputs, *opts)
    assert share <= most_crops
    assert (labels == exact).float().mean() >= least_equal
