"""How batches, passes, processes and precisions share a step; what goes wrong in one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import open_clip
import pytest
import torch
from adaptation_world import command, history, settled, weights, write_world
from clip_pairs import NOUNS, write_pairs
from conftest import ROOT

from open_clip_training.adaptation.batches import Batch
from open_clip_training.adaptation.model import load_clip
from open_clip_training.adaptation.options import parse_arguments
from open_clip_training.adaptation.run import AdaptationRun
from open_clip_training.adaptation.settings import choose_settings
from open_clip_training.common.processes import Processes
from open_clip_training.train import main
from ovseg.errors import UserError


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with pairs and a CLIP without mask prompts."""
    return write_world(tmp_path_factory.mktemp("adaptation"))


def test_training_lowers_the_loss(world, tmp_path):
    # batches without a part left over, so that their losses compare
    main(command(world, tmp_path / "new.pt", "--train", "both", "--steps", 20, "--batch-size", 14,
                 "--lr", 3e-3, "--templates", "a {}"))  # fmt: skip
    losses = history(tmp_path / "new.pt")["losses"]
    assert losses[-1] < 0.8 * losses[0]


def test_crops_may_be_without_their_background(world, tmp_path, monkeypatch):
    import open_clip_training.adaptation.run as run

    seen = []
    encode = run.foreground_features

    def watched(visual, images, masks):
        seen.append(masks.flatten(1).mean(dim=1))
        return encode(visual, images, masks)

    monkeypatch.setattr(run, "foreground_features", watched)
    for background in ("fill", "drop"):
        main(command(world, tmp_path / f"{background}.pt", "--background", background))
    fill, drop = (history(tmp_path / f"{name}.pt") for name in ("fill", "drop"))
    assert len(seen) == len(drop["losses"]) == 3
    shares = torch.cat(seen)
    assert (shares > 0).all()
    assert (shares < 1).any()
    assert drop["settings"]["background"] == "drop"
    assert fill["losses"][0] != pytest.approx(drop["losses"][0], rel=1e-3)


@pytest.mark.parametrize("loss", [(), ("--plain-loss", None)])
def test_passes_of_a_batch_change_nothing(world, tmp_path, loss):
    for name, passes in (("whole", 1), ("parts", 3)):
        main(command(world, tmp_path / f"{name}.pt", "--train", "both", "--accumulate", passes,
                     *loss))  # fmt: skip
    whole, parts = history(tmp_path / "whole.pt"), history(tmp_path / "parts.pt")
    assert whole["losses"] == pytest.approx(parts["losses"], abs=1e-5)
    states = [torch.load(tmp_path / f"{name}_resume.pt")["trained"] for name in ("whole", "parts")]
    for key, value in states[0].items():
        torch.testing.assert_close(
            settled(key, states[1][key]), settled(key, value), atol=2e-5, rtol=1e-4
        )


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(world, tmp_path):
    extra = ("--train", "both", "--steps", 4)
    main(command(world, tmp_path / "one.pt", *extra))
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         ROOT / "open_clip_training/train.py", *command(world, tmp_path / "two.pt", *extra)],
        check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=200,
    )  # fmt: skip
    one, two = history(tmp_path / "one.pt"), history(tmp_path / "two.pt")
    assert len(one["losses"]) == 4
    assert one["losses"] == pytest.approx(two["losses"], abs=1e-5)
    after = weights(tmp_path / "two.pt")
    for key, value in weights(tmp_path / "one.pt").items():
        torch.testing.assert_close(
            settled(key, after[key]), settled(key, value), atol=2e-3, rtol=2e-3
        )


@pytest.mark.parametrize(("steps", "message"), [(3, "the loss of step 1 is nan"), (1, "spoilt")])
def test_training_that_fails_is_not_saved(world, tmp_path, steps, message):
    with pytest.raises(UserError, match=message):
        main(command(world, tmp_path / "new.pt", "--lr", 1e30, "--steps", steps, "--warmup", 0))
    assert not (tmp_path / "new.pt").exists()


def test_half_precision_skips_a_step_that_overflows(world, tmp_path, monkeypatch):
    features = AdaptationRun._features
    monkeypatch.setattr(
        AdaptationRun,
        "_features",
        lambda run, *parts: features(run, *parts) * (float("inf") if run.step == 1 else 1),
    )
    main(command(world, tmp_path / "new.pt", "--precision", "amp"))
    losses = history(tmp_path / "new.pt")["losses"]
    assert [loss is None for loss in losses] == [False, True, False]  # JSON has no infinity
    assert all(value.isfinite().all() for value in weights(tmp_path / "new.pt").values())


def test_bf16_stays_near_full_precision(world, tmp_path):
    for precision in ("fp32", "amp_bf16"):
        main(command(world, tmp_path / f"{precision}.pt", "--precision", precision))
    full, half = history(tmp_path / "fp32.pt"), history(tmp_path / "amp_bf16.pt")
    assert full["losses"] != half["losses"]
    assert full["losses"] == pytest.approx(half["losses"], rel=0.05)


def test_pairs_that_cannot_be_used_are_named_and_counted(world, tmp_path, caplog):
    write_pairs(tmp_path / "pairs")
    crops = tmp_path / "pairs/crops"
    (crops / "0_0.png").write_bytes(b"noise")
    (crops / "0_5_mask.png").unlink()
    (crops / "0_7_mask.png").write_bytes((crops / "0_8_mask.png").read_bytes())
    caplog.set_level(logging.INFO)
    main(command(world, tmp_path / "new.pt", "--train-data", tmp_path / "pairs", "--train",
                 "mask-prompts", "--steps", 6))  # fmt: skip
    done = history(tmp_path / "new.pt")
    assert done["pairs_left_out"] == 3
    assert done["pairs"] == 14
    for name in ("0_0.png", "0_5_mask.png", "0_7_mask.png"):
        assert caplog.text.count(name) == 1
    assert all(value.isfinite().all() for value in weights(tmp_path / "new.pt").values())


def test_every_noun_gets_one_template_a_step(world):
    model, cfg = load_clip(str(world / "clip.pt"), "", None, prompts_train=False)
    options = parse_arguments(command(world, world / "x.pt"))
    settings = choose_settings(options, 9, 16, world=1)
    run = AdaptationRun(model, cfg, [*NOUNS] * 3, settings, Processes(torch.device("cpu")))
    features, owners = run._texts(torch.arange(9), torch.Generator().manual_seed(0))
    assert features.shape == (3, 16)
    assert owners.tolist() == [1, 0, 2] * 3  # grass, red ball, sea
    with torch.no_grad():
        every = [
            model.encode_text(open_clip.tokenize([template.replace("{}", noun)]))[0]
            for noun in ("grass", "red ball", "sea")
            for template in run.settings.templates
        ]
    distance = (features[:, None] - torch.stack(every)).norm(dim=-1).view(3, 3, 14)
    for noun in range(3):
        assert distance[noun, noun].min() < 1e-4
        assert (distance[noun, noun] < 1e-4).sum() == 1
    others, _ = run._texts(torch.arange(9), torch.Generator().manual_seed(1))
    assert not torch.allclose(features, others, atol=1e-3)


def test_published_crops_are_not_mirrored(world):
    model, cfg = load_clip(str(world / "clip.pt"), "", None, prompts_train=False)
    images = torch.zeros(64, 3, 16, 16, dtype=torch.uint8)
    images[..., :8] = 255
    batch = Batch(images, torch.ones(64, 1, 16, 16, dtype=torch.uint8), torch.ones(64, dtype=bool))
    lighter_left = {}
    for given in ((), ("--published",)):
        settings = choose_settings(
            parse_arguments([*command(world, world / "x.pt"), *given]), 64, 16, world=1
        )
        run = AdaptationRun(model, cfg, [*NOUNS] * 3, settings, Processes(torch.device("cpu")))
        ((shown, _),) = run._inputs(batch, 64, torch.Generator().manual_seed(0))
        lighter_left[given] = (shown[:, 0, 8, 1] > shown[:, 0, 8, 14]).sum().item()
    assert 16 < lighter_left[()] < 48
    assert lighter_left["--published",] == 64
