"""Adapting CLIP to a shared pass: what trains, what is written, and that it can be continued."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_world import tiny_world

from open_clip_training.adaptation.options import parse_arguments
from open_clip_training.regions.images import CropSettings, RegionImages, batches
from open_clip_training.regions.loop import adapt_to_regions
from open_clip_training.regions.run import RegionRun, region_loss
from open_clip_training.regions.teacher import crop_loss, like_proposals
from ovseg import UserError
from ovseg.modeling.clip import read_clip_file


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The CLIP of a world whose data set ``regions_train`` has five images."""
    with tiny_world(tmp_path_factory.mktemp("world"), prefix="regions") as clip:
        yield clip


def train(clip: Path, output: Path, *more: str) -> dict:
    given = [
        "--regions", "shared", "--clip", str(clip), "--train-data", "regions_train", "--device",
        "cpu", "--steps", "6", "--warmup", "1", "--batch-size", "2", "--workers", "0",
        "--output", str(output),
    ]  # fmt: skip
    adapt_to_regions(parse_arguments([*given, *more]))
    return json.loads(output.with_name(f"{output.stem}_history.json").read_text())


def test_own_queries_train_and_nothing_else(clip, tmp_path: Path) -> None:
    output = tmp_path / "queries.pt"
    history = train(
        clip, output, "--train", "mask-queries", "--eval-data", "regions_dev", "--first-block", "1"
    )
    assert len(history["losses"]) == 6
    assert [check["step"] for check in history["checks"]] == [0, 6]
    weights, _ = read_clip_file(str(clip))
    found = torch.load(output, weights_only=True)
    assert set(found) == {"queries", "query_bias"}
    start = torch.stack(
        [weights[f"visual.transformer.resblocks.{block}.attn.in_proj_weight"][:32]
         for block in (1, 2, 3)]
    )  # fmt: skip
    assert found["queries"].shape == start.shape
    change = (found["queries"].float() - start).abs()
    assert 1e-3 < change.max() < 0.1


def test_the_bias_trains_from_its_published_start(clip, tmp_path: Path) -> None:
    output = tmp_path / "bias.pt"
    train(clip, output, "--train", "mask-bias")
    found = torch.load(output, weights_only=True)
    assert set(found) == {"inside"}
    assert found["inside"].shape == (4, 2)
    change = (found["inside"].float() + 5).abs()
    assert 1e-3 < change.max() < 0.1


def test_fine_tuning_writes_a_clip(clip, tmp_path: Path) -> None:
    output = tmp_path / "visual.pt"
    train(clip, output, "--train", "visual", "--lr", "1e-3")
    before, _ = read_clip_file(str(clip))
    after, _ = read_clip_file(str(output))
    changed = {name for name in before if not torch.equal(before[name].half(), after[name].half())}
    assert "visual.conv1.weight" in changed
    assert all(name.startswith("visual.") for name in changed)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(clip, tmp_path: Path, monkeypatch) -> None:
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    expected = train(clip, whole, "--train", "mask-queries")

    advance = RegionRun.advance

    def terminated_in_the_fourth(run: RegionRun, batch) -> float:
        if run.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(run, batch)

    monkeypatch.setattr(RegionRun, "advance", terminated_in_the_fourth)
    with pytest.raises(SystemExit) as caught:
        train(clip, parts, "--train", "mask-queries")
    assert caught.value.code == 143
    monkeypatch.undo()
    assert json.loads(parts.with_name("parts_history.json").read_text())["step"] == 4
    found = train(clip, parts, "--train", "mask-queries", "--resume")
    assert found["losses"] == expected["losses"]
    assert torch.equal(torch.load(parts)["queries"], torch.load(whole)["queries"])
    with pytest.raises(UserError, match="resolution"):
        train(clip, parts, "--train", "mask-queries", "--resolution", "40", "--resume")


def test_a_loss_that_is_not_finite_is_named(clip, tmp_path: Path) -> None:
    output = tmp_path / "queries.pt"
    message = r"the loss of step \d is nan, .*: give a smaller --region-lr \(now 1e\+30\)"
    with pytest.raises(UserError, match=message):
        train(clip, output, "--train", "mask-queries", "--region-lr", "1e30")
    assert not output.exists()


def test_regions_are_the_patches_of_the_classes(clip) -> None:
    images = RegionImages("regions_train", 32, 8, augment=False)
    batch = images[[(0, 0), (1, 0)]]
    from PIL import Image

    for row, record in enumerate(images.records[:2]):
        truth = np.asarray(Image.open(record["sem_seg_file_name"]))
        side = min(truth.shape)
        left = (truth.shape[1] - side) // 2
        truth = truth[:side, left : left + side]
        classes = [c for c in np.unique(truth) if c != 255 and (truth == c).sum() >= 64]
        known = batch.labels[row] >= 0
        assert batch.labels[row][known].tolist() == classes
        for region, label in enumerate(classes):
            for patch in range(16):
                top, at = patch // 4 * side // 4, patch % 4 * side // 4
                part = truth[top : top + side // 4, at : at + side // 4]
                assert bool(batch.covered[row, region, patch]) == (part == label).any()


def test_every_image_counts_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 8, generator=generator)
    text = F.normalize(torch.randn(5, 8, generator=generator), dim=-1)
    labels = torch.tensor([[2, -1, -1], [0, 4, 1]])
    expected = 0.0
    for image in range(2):
        regions = [region for region in range(3) if labels[image, region] >= 0]
        for region in regions:
            unit = features[image, region] / features[image, region].norm()
            probs = (100 * text @ unit).softmax(dim=0)
            expected -= float(probs[labels[image, region]].log()) / len(regions) / 2
    assert float(region_loss(features, text, labels)) == pytest.approx(expected, rel=1e-4)


def test_a_teacher_sees_every_region_also_those_without_a_class(clip) -> None:
    settings = CropSettings((32, 32), (0.5, 0.25, 0.75))
    images = RegionImages("regions_train", 32, 8, augment=False, crops=settings)
    batch = images[[(0, 0), (1, 0)]]
    from PIL import Image

    assert batch.crops is not None
    crops = iter(batch.crops)
    for row, record in enumerate(images.records[:2]):
        pixels = np.asarray(Image.open(record["file_name"]).convert("RGB"))
        truth = np.asarray(Image.open(record["sem_seg_file_name"]))
        side = min(truth.shape)
        left = (truth.shape[1] - side) // 2
        window = np.s_[:side, left : left + side]
        pixels, truth = pixels[window], truth[window]
        regions = [c for c in np.unique(truth) if (truth == c).sum() >= 64]
        labels = [c if c < len(images.names) else -1 for c in regions]
        assert batch.labels[row][batch.there[row]].tolist() == labels
        for region in regions:
            rows, columns = np.nonzero(truth == region)
            box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            filled = np.where((truth == region)[..., None], pixels, 255 * np.array(settings.mean))
            expected = F.interpolate(
                torch.tensor(filled[box], dtype=torch.float32).permute(2, 0, 1)[None],
                (32, 32), mode="bicubic", antialias=False,
            )[0]  # fmt: skip
            found = next(crops)
            assert found.shape == expected.shape
            assert (found.mean((1, 2)) - expected.mean((1, 2))).abs().max() < 12


def test_what_crops_teach_brings_regions_nearer_to_them(clip, tmp_path: Path) -> None:
    options = ["--train", "mask-queries", "--teacher", "crops", "--no-augment"]
    few = train(clip, tmp_path / "few.pt", *options, "--steps", "6")["losses"]
    many = train(clip, tmp_path / "many.pt", *options, "--steps", "60")["losses"]
    assert np.mean(many[-3:]) < 0.9 * np.mean(few[:3])
    assert len(
        train(clip, tmp_path / "fine.pt", "--train", "visual", "--teacher", "crops")["losses"]
    )


def test_the_loss_of_a_teacher_is_distance_and_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    features, taught = torch.randn(2, 3, 8, generator=generator).unbind()
    text = F.normalize(torch.randn(5, 8, generator=generator), dim=-1)
    expected = 0.0
    for own, crop in zip(features, taught, strict=True):
        own, crop = own / own.norm(), crop / crop.norm()
        p, q = ((100 * text @ unit).double().softmax(dim=0) for unit in (crop, own))
        expected += 10 * (1 - float(own @ crop)) + float((p * (p / q).log()).sum())
    assert float(crop_loss(features, taught, text)) == pytest.approx(expected / 3, rel=1e-4)
    nothing = crop_loss(features[:0].requires_grad_(), taught[:0], text)
    assert float(nothing.detach()) == 0


def test_masks_like_proposals() -> None:
    masks = np.zeros((2, 40, 40), bool)
    masks[0, 5:20, 5:20] = masks[1, 26:38, 10:30] = True
    seen = {"same": 0, "larger": 0, "smaller": 0, "joined": 0}
    for seed in range(100):
        first = like_proposals(masks, np.random.default_rng(seed))[0]
        assert first.sum() >= 64
        if (first == masks[0]).all():
            seen["same"] += 1
        elif (first & masks[1]).any():
            assert (first == masks.any(axis=0)).all()
            seen["joined"] += 1
        elif (first & ~masks[0]).any():
            assert (first >= masks[0]).all()
            seen["larger"] += 1
        else:
            seen["smaller"] += 1
    assert min(seen.values()) >= 3
    assert like_proposals(masks[:0], np.random.default_rng(0)).shape == (0, 40, 40)
    small = np.zeros((1, 40, 40), bool)
    small[0, :8, :8] = True  # as small as a region may be
    assert all(like_proposals(small, np.random.default_rng(seed)).sum() >= 64 for seed in range(30))


def test_an_epoch_has_every_image_once_and_a_resumed_run_the_same_batches() -> None:
    every = list(batches(6, 2, 6, seed=1))
    assert sorted(index for batch in every[:3] for index, _ in batch) == list(range(6))
    assert list(batches(6, 2, 6, seed=1, first_step=2)) == every[2:]
    assert list(batches(6, 2, 6, seed=2)) != every


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--regions", "shared", "--train", "mask-prompts"], "mask-prompts is not for --regions"),
        (["--train", "mask-queries"], "mask-queries is not for --regions crops"),
        (["--teacher", "crops"], "--teacher crops is for --regions shared"),
        (["--regions", "shared", "--precision", "amp"], "--precision is not for --regions shared"),
        (["--regions", "shared", "--num-processes", "2"], "--num-processes is not for --regions"),
        (["--regions", "shared", "--epochs", "2"], "--epochs is not for --regions shared, which"),
        (["--regions", "shared", "--train-data", "x", "y"], "x y: --regions shared takes one data"),
    ],
)
def test_what_does_not_go_together_is_named(options: list[str], message: str) -> None:
    given = ["--clip", "ViT-B/16", "--train-data", "x", "--output", "y.pt"]
    with pytest.raises(UserError, match=message):
        parse_arguments([*given, *options])


def test_several_processes_of_a_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"),
                        ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):  # fmt: skip
        monkeypatch.setenv(name, value)
    given = ["--clip", "ViT-B/16", "--train-data", "x", "--output", "y.pt"]
    for kind in (["--regions", "shared"], ["--train", "text-prompts"]):
        with pytest.raises(UserError, match="torchrun has started 2 processes"):
            parse_arguments([*given, *kind])
    parse_arguments(given)
