"""Pretraining a backbone by true regions: its means, its loss, its files, and that it goes on."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_world import SWIN, tiny_opts, tiny_world
from torch import nn

from open_clip_training.backbone.loop import pretrain_backbone
from open_clip_training.backbone.options import parse_arguments
from open_clip_training.backbone.run import (
    TEMPERATURE,
    BackboneRun,
    BackboneSettings,
    RegionClassifier,
    region_means,
)
from open_clip_training.regions.images import RegionBatch
from ovseg import UserError
from ovseg.config import setup_cfg
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.trainer import Trainer


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The CLIP of a world with the data sets ``backbone_train`` and ``backbone_dev``."""
    with tiny_world(tmp_path_factory.mktemp("world"), prefix="backbone") as clip:
        yield clip


def train(clip: Path, output: Path, *more: str, **overrides: Any) -> dict:
    given = [
        "--config-file", str(SWIN), "--train-data", "backbone_train", "--eval-data",
        "backbone_dev", "--size", "64", "--steps", "6", "--warmup", "1", "--batch-size", "2",
        "--workers", "0", "--output", str(output), *more,
    ]  # fmt: skip
    pretrain_backbone(parse_arguments([*given, *tiny_opts(clip, **overrides)]))
    return json.loads(output.with_name(f"{output.stem}_history.json").read_text())


def test_means_are_taken_over_the_places_of_each_region() -> None:
    # two channels of 2 x 2 places; the first image has two regions, the second one
    maps = torch.tensor(
        [[[[1.0, 2], [3, 4]], [[0, 0], [0, 8]]], [[[5.0, 5], [5, 9]], [[1, 1], [1, 1]]]]
    )
    covered = torch.tensor(
        [[[True, True, False, False], [False, False, True, True]],
         [[False, False, False, True], [False, False, False, False]]]
    )  # fmt: skip
    expected = [[[1.5, 0], [3.5, 4]], [[9, 1], [0, 0]]]
    assert region_means(maps, covered).tolist() == expected


class Corner(nn.Module):
    """A backbone whose map is its image, as it is."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"all": images}


def region_run(labels: list[list[int]]) -> tuple[BackboneRun, RegionBatch]:
    """Two images of 1 x 2 pixels, whose regions are their pixels."""
    text = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]])
    model = RegionClassifier(Corner(), "all", 3, text, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    with torch.no_grad():
        model.project.weight.copy_(torch.eye(3))
        model.project.bias.zero_()
    images = torch.tensor(
        [[[[3, 0]], [[4, 1]], [[0, 0]]], [[[0, 2]], [[0, 0]], [[7, 0]]]], dtype=torch.uint8
    )
    covered = torch.tensor([[[True, False], [False, True]]] * 2)
    settings = BackboneSettings(3, 2, 1, 0.1, 0.0, 2, 0)
    classes = torch.tensor(labels)
    batch = RegionBatch(images, covered, classes, there=classes >= 0)
    return BackboneRun(model, settings, {}), batch


def test_the_loss_is_the_mean_cross_entropy_of_the_regions_there_are() -> None:
    run, batch = region_run([[3, 1], [2, -1]])
    cosines = np.array([[0.6, 0.8, 0, 1.0], [0, 1, 0, 0.8], [0, 0, 1, 0]])
    logits = TEMPERATURE * cosines
    expected = np.mean(
        [math.log(np.exp(row).sum()) - row[label]
         for row, label in zip(logits, (3, 1, 2), strict=True)]
    )  # fmt: skip
    assert run.advance(batch) == pytest.approx(expected, rel=1e-4)
    assert not torch.equal(run.model.project.weight, torch.eye(3))
    assert run.step == 1


def test_what_is_right_is_counted_by_label() -> None:
    run, batch = region_run([[3, 0], [2, -1]])
    labels, hits = run.right(batch)
    assert labels.tolist() == [3, 0, 2]
    assert hits.tolist() == [True, False, True]


def test_a_batch_without_regions_teaches_nothing() -> None:
    run, batch = region_run([[-1, -1], [-1, -1]])
    assert run.advance(batch) == 0
    assert torch.equal(run.model.project.weight, torch.eye(3))


def test_a_loss_that_is_not_finite_stops_the_run_before_the_step() -> None:
    run, batch = region_run([[3, 1], [2, -1]])
    run.model.std.fill_(math.nan)
    with pytest.raises(UserError, match=r"--lr"):
        run.advance(batch)
    assert torch.equal(run.model.project.weight, torch.eye(3))


def test_the_colours_are_in_the_order_of_the_backbone() -> None:
    run, batch = region_run([[3, 1], [2, 0]])
    expected = run.model(replace(batch, images=batch.images.flip(1)))
    run.model.bgr = True
    assert torch.equal(run.model(batch), expected)


def test_the_result_is_a_backbone_for_the_config(clip, tmp_path: Path) -> None:
    output = tmp_path / "backbone.pth"
    history = train(clip, output, "--eval-every", "3")
    assert len(history["losses"]) == 6
    assert [check["step"] for check in history["checks"]] == [3, 6]
    assert all(0 <= check["accuracy"] <= 100 for check in history["checks"])
    written = torch.load(output, weights_only=True)["model"]
    assert all(name.startswith("backbone.") for name in written)
    cfg = setup_cfg(SWIN, tiny_opts(clip, MODEL__WEIGHTS=output))
    model = Trainer.build_model(cfg)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    OVSegCheckpointer(model, cfg=cfg).load(cfg.MODEL.WEIGHTS)
    for name, value in model.state_dict().items():
        if name in written:
            assert torch.equal(value, written[name].to(value.dtype)), name
        else:
            assert torch.equal(value, before[name]), name


def test_a_stopped_run_goes_on_as_if_it_had_not_been(clip, tmp_path: Path, monkeypatch) -> None:
    whole, parts = tmp_path / "whole.pth", tmp_path / "parts.pth"
    expected = train(clip, whole)
    advance = BackboneRun.advance

    def terminated_in_the_fourth(run: BackboneRun, batch: RegionBatch) -> float:
        if run.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(run, batch)

    monkeypatch.setattr(BackboneRun, "advance", terminated_in_the_fourth)
    with pytest.raises(SystemExit) as caught:
        train(clip, parts)
    assert caught.value.code == 143
    monkeypatch.undo()
    history = json.loads(parts.with_name("parts_history.json").read_text())
    assert history["step"] == 4
    found = train(clip, parts, "--resume")
    assert found["losses"] == expected["losses"]
    weights = [torch.load(path, weights_only=True)["model"] for path in (whole, parts)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    with pytest.raises(UserError, match="seed"):
        train(clip, parts, "--resume", "--seed", "1")
    with pytest.raises(UserError, match=r"begun with other settings \(--feature res5, now res4"):
        train(clip, parts, "--resume", "--feature", "res4")
    with pytest.raises(UserError, match=r"begun with other settings \(the backbone "):
        train(clip, parts, "--resume", MODEL__SWIN__EMBED_DIM=32)


def test_a_check_that_was_broken_off_is_made_up_for(clip, tmp_path: Path, monkeypatch) -> None:
    output = tmp_path / "new.pth"
    right = BackboneRun.right

    def terminated(run: BackboneRun, batch: RegionBatch) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return right(run, batch)

    monkeypatch.setattr(BackboneRun, "right", terminated)
    with pytest.raises(SystemExit) as caught:
        train(clip, output)
    assert caught.value.code == 143
    monkeypatch.undo()
    saved = json.loads(output.with_name("new_history.json").read_text())
    assert (saved["step"], saved["checks"]) == (6, [])
    found = train(clip, output, "--resume")
    expected = train(clip, tmp_path / "whole.pth")
    assert found["checks"] == expected["checks"]
    assert found["checks"][-1]["step"] == found["step"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--size", "70"), "--size 70: give a multiple of 32, the stride of res5"),
        (("--feature", "res6"), "--feature res6: the backbone has "),
        (("--batch-size", "6"), "--batch-size 6 is more than the 5 images"),
        (("--eval-data", "backbone_train", "--train-data", "backbone_dev"),
         "--eval-data backbone_train does not begin with the classes of --train-data backbone_dev"),
        (("--warmup", "6"), "--warmup 6 must be less than the 6 steps"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said_in_a_line(clip, tmp_path, options, expected) -> None:
    with pytest.raises(UserError, match="^" + expected.replace(".", r"\.")):
        train(clip, tmp_path / "backbone.pth", *options)
    assert not list(tmp_path.iterdir())
