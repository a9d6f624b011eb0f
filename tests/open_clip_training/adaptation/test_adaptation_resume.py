"""A stopped adaptation goes on as if it had not stopped, or says why it cannot."""

from __future__ import annotations

import pytest
import torch
from adaptation_world import command, history, write_world
from clip_pairs import write_clip, write_pairs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from open_clip_training.adaptation.run import AdaptationRun
from open_clip_training.train import main
from ovseg.errors import UserError


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with pairs and a CLIP without mask prompts."""
    return write_world(tmp_path_factory.mktemp("adaptation"))


@pytest.mark.parametrize(("seconds", "kept"), [(300, 2), (0, 3)], ids=["epoch", "minutes"])
def test_a_resumed_run_equals_an_unbroken_one(world, tmp_path, monkeypatch, seconds, kept):
    monkeypatch.setattr("open_clip_training.adaptation.loop.SAVE_SECONDS", seconds)
    write_pairs(tmp_path / "pairs")
    (tmp_path / "pairs/crops/0_0.png").write_bytes(b"noise")  # its noun counts in both
    extra = ("--train", "both", "--steps", 5, "--train-data", tmp_path / "pairs")
    extra += ("--seed", 2)  # two steps an epoch; the bad pair is only in the first
    main(command(world, tmp_path / "unbroken.pt", *extra))
    advance = AdaptationRun.advance

    def stop_at_4(run, *args):
        if run.step == 3:
            raise KeyboardInterrupt
        return advance(run, *args)

    monkeypatch.setattr(AdaptationRun, "advance", stop_at_4)
    with pytest.raises(KeyboardInterrupt):
        main(command(world, tmp_path / "broken.pt", *extra))
    monkeypatch.setattr(AdaptationRun, "advance", advance)
    assert history(tmp_path / "broken.pt")["step"] == kept
    write_clip(tmp_path / "other.pt", seed=2)
    write_pairs(tmp_path / "other", 13)
    for option, value in (
        ("--lr", 1e-4),
        ("--clip", tmp_path / "other.pt"),
        ("--train-data", tmp_path / "other"),
        ("--mask-prompt-depth", 2),
    ):
        with pytest.raises(UserError, match=rf"was begun with other settings \({option} [^;]*\):"):
            main(command(world, tmp_path / "broken.pt", *extra, option, value, "--resume", None))
    main(command(world, tmp_path / "broken.pt", *extra, "--resume", None))
    unbroken, broken = history(tmp_path / "unbroken.pt"), history(tmp_path / "broken.pt")
    assert unbroken == broken
    assert broken["pairs_left_out"] == 1
    after = torch.load(tmp_path / "broken_resume.pt", weights_only=True)["trained"]
    for key, value in torch.load(tmp_path / "unbroken_resume.pt")["trained"].items():
        assert torch.equal(after[key], value), key


def test_a_check_that_was_broken_off_is_made_up_for(world, tmp_path, monkeypatch):
    seen = []

    class Check:
        name = "regions"

        def __init__(self, *_):
            pass

        def __call__(self, *_):
            seen.append(len(seen))
            if len(seen) == 3:
                raise KeyboardInterrupt
            return {"accuracy": 50.0 + len(seen)}

    monkeypatch.setattr("open_clip_training.adaptation.eval_data.RegionCheck", Check)
    extra = ("--steps", 3, "--eval-data", "regions")  # two steps an epoch
    with pytest.raises(KeyboardInterrupt):
        main(command(world, tmp_path / "new.pt", *extra))
    main(command(world, tmp_path / "new.pt", *extra, "--resume", None))
    checks = [{"step": step, "accuracy": value} for step, value in ((0, 51), (2, 52), (3, 54))]
    assert history(tmp_path / "new.pt")["checks"] == checks
    # the curves have each step once
    curves = EventAccumulator(str(tmp_path / "new_tensorboard")).Reload()
    assert [event.step for event in curves.Scalars("loss")] == [1, 2, 3]
    assert [event.step for event in curves.Scalars("regions/accuracy")] == [0, 2, 3]


def test_a_loss_that_was_skipped_is_none_in_the_history(world, tmp_path, monkeypatch):
    advance = AdaptationRun.advance

    def skipped_at_2(run, *args):
        loss = advance(run, *args)
        if run.step == 2:
            run.losses[-1] = float("nan")
        return loss

    monkeypatch.setattr(AdaptationRun, "advance", skipped_at_2)
    main(command(world, tmp_path / "new.pt"))
    losses = history(tmp_path / "new.pt")["losses"]
    assert [loss is None for loss in losses] == [False, True, False]
    saved = torch.load(tmp_path / "new_resume.pt", weights_only=True)["history"]["losses"]
    assert saved[1] != saved[1]


def test_a_damaged_state_is_named(world, tmp_path):
    (tmp_path / "new_resume.pt").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(UserError, match=r"new_resume.pt is damaged .*; give --overwrite"):
        main(command(world, tmp_path / "new.pt", "--resume", None))
    torch.save([1], tmp_path / "new_resume.pt")
    with pytest.raises(UserError, match=r"new_resume.pt is no training state"):
        main(command(world, tmp_path / "new.pt", "--resume", None))
