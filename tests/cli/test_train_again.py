"""Trainings that go astray, are resumed with other settings, or begin where another one ran."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from held_locks import held
from tiny_world import CONFIGS, tiny_world, train_command

from ovseg.cli import train
from ovseg.engine import resuming
from ovseg.engine.resuming import MAY_CHANGE


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_world(tmp_path_factory.mktemp("world"), prefix="again") as path:
        yield path


command = functools.partial(train_command, DATASETS__TRAIN="again_train", DATASETS__TEST="()")


@pytest.fixture(scope="module")
def trained(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of two iterations of training."""
    output = tmp_path_factory.mktemp("trained")
    train.main(command(clip, output))
    return output


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "out"))


def answer(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """What a command that must fail says on stderr: one line, with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        train.main(argv)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    return line


def last_rate(folder: Path) -> float:
    lines = [json.loads(line) for line in (folder / "metrics.json").open()]
    rates: list[float] = [line["lr"] for line in lines if "lr" in line]
    return rates[-1]


def test_two_trainings_in_one_folder_are_refused(
    clip: Path, copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "_LOADERS_END", 0.0)
    before = contents(copied)
    with held(copied / ".training.lock"):
        for how in ("--overwrite", "--resume"):
            said = answer(capsys, command(clip, copied, how))
            assert f"OUTPUT_DIR: another training writes to {str(copied)!r}; give another" in said
    after = contents(copied)
    assert {name: after[name] for name in before} == before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_loss_that_is_not_finite_is_one_line_and_the_last_checkpoint_stays(
    clip: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = (copied / "model_final.pth").read_bytes()
    overrides = {"SOLVER__BASE_LR": 1e30, "SOLVER__MAX_ITER": 8}
    said = answer(capsys, command(clip, copied, "--resume", **overrides))
    rate = 1e30 * (1 - 3 / 8) ** 0.9
    assert said == (
        f"error: the loss_ce of iteration 3 is nan (and 5 more), at learning rate {rate:.3g}: give "
        "a smaller SOLVER.BASE_LR or a longer SOLVER.WARMUP_ITERS, and --resume, which goes on "
        f"from {copied / 'model_final.pth'}"
    )
    assert (copied / "model_final.pth").read_bytes() == kept
    assert not list(copied.glob("model_0*.pth"))
    log = (copied / "log.txt").read_text()
    assert said.removeprefix("error: ") in log
    assert "Traceback" not in log
    # the way out
    train.main(command(clip, copied, "--resume", SOLVER__BASE_LR=1e-4, SOLVER__MAX_ITER=4))
    assert last_rate(copied) == pytest.approx(1e-4 * (1 - 3 / 4) ** 0.9)


def test_spoilt_weights_are_no_checkpoint(
    clip: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # of a single iteration, whose loss is finite and whose weights are not
    overrides = {"SOLVER__BASE_LR": 1e300, "SOLVER__MAX_ITER": 3}
    kept = (copied / "model_final.pth").read_bytes()
    said = answer(capsys, command(clip, copied, "--resume", **overrides))
    assert "error: training has spoilt backbone.patch_embed.proj.weight, so " in said
    assert "model_final.pth is not written: give a smaller SOLVER.BASE_LR" in said
    assert (copied / "model_final.pth").read_bytes() == kept


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"SOLVER__IMS_PER_BATCH": 4}, "SOLVER.IMS_PER_BATCH 2, now 4"),
        ({"SOLVER__WEIGHT_DECAY": 0.5}, "SOLVER.WEIGHT_DECAY 0.01, now 0.5"),
        ({"SOLVER__OPTIMIZER": "SGD"}, "SOLVER.OPTIMIZER ADAMW, now SGD"),
        ({"SEED": 4}, "SEED 3, now 4"),
        ({"INPUT__CROP__SIZE": [40, 40]}, "INPUT.CROP.SIZE [32, 32], now [40, 40]"),
        ({"DATASETS__TRAIN": "again_dev"}, "DATASETS.TRAIN ['again_train'], now ['again_dev']"),
        ({"MODEL__MASK_FORMER__DICE_WEIGHT": 2.0}, "MODEL.MASK_FORMER.DICE_WEIGHT 1.0, now 2.0"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    clip: Path,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: dict[str, object],
    expected: str,
) -> None:
    before = contents(trained)
    said = answer(capsys, command(clip, trained, "--resume", **overrides))
    assert f"--resume: {trained}/model_final.pth was begun with other settings ({expected}" in said
    assert f"MODEL.WEIGHTS {trained}/model_final.pth and another OUTPUT_DIR" in said
    assert contents(trained) == before  # config.yaml too


def test_resuming_with_other_classes_or_images_is_refused(
    clip: Path, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = MetadataCatalog.get("again_train").stuff_classes
    changed = ["zebra", *names[1:-1]]
    with monkeypatch.context() as patch:
        patch.setitem(MetadataCatalog.get("again_train").__dict__, "stuff_classes", changed)
        said = answer(capsys, command(clip, trained, "--resume"))
    count = len(names)
    assert f"(classes of DATASETS.TRAIN {count}, now {count - 1}; class 0 {names[0]}, " in said
    assert "now zebra)" in said
    image = next((clip.parent / "stickerscenes/images/train").iterdir())
    label = clip.parent / "stickerscenes/annotations/train" / image.name
    image.rename(clip.parent / image.name)
    label.rename(clip.parent / f"label_{image.name}")
    try:
        said = answer(capsys, command(clip, trained, "--resume"))
    finally:
        (clip.parent / image.name).rename(image)
        (clip.parent / f"label_{image.name}").rename(label)
    assert "(images of again_train 5, now 4)" in said


def test_resuming_past_the_end_names_both_numbers(
    clip: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = answer(capsys, command(clip, trained, "--resume", SOLVER__MAX_ITER=1))
    assert said == (
        f"error: --resume: {trained}/model_final.pth has 2 iterations behind it, more than "
        "SOLVER.MAX_ITER 1; give SOLVER.MAX_ITER 2 or more"
    )


def without_mark(folder: Path) -> None:
    (folder / "last_checkpoint").unlink()


def mark_of_nothing(folder: Path) -> None:
    (folder / "last_checkpoint").write_text("model_0000099.pth")


def cut_short(folder: Path) -> None:
    file = folder / "model_final.pth"
    file.write_bytes(file.read_bytes()[:10_000])


def cut_short_and_no_other(folder: Path) -> None:
    cut_short(folder)
    (folder / "model_0000000.pth").unlink()


def weights_alone(folder: Path) -> None:
    file = folder / "model_final.pth"
    torch.save({"model": torch.load(file, weights_only=True)["model"]}, file)


ANOTHER = "write the name of another checkpoint, such as model_0000000.pth, into"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_mark, f"last_checkpoint is not there; {ANOTHER}"),
        (
            mark_of_nothing,
            f"last_checkpoint names 'model_0000099.pth', which is not there; {ANOTHER}",
        ),
        (cut_short, f"cannot be read: it is truncated; get it again, or {ANOTHER}"),
        (cut_short_and_no_other, "get it again, or give --overwrite in place of --resume"),
        (weights_alone, "model_final.pth holds weights alone, and no state of a training"),
    ],
)
def test_a_checkpoint_to_go_on_from_that_cannot_be_used(
    clip: Path,
    copied: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    shutil.copy(copied / "model_final.pth", copied / "model_0000000.pth")
    os.utime(copied / "model_0000000.pth")
    spoil(copied)
    before = contents(copied)
    said = answer(capsys, command(clip, copied, "--resume"))
    assert said.startswith("error: --resume: ")
    assert message in said
    assert contents(copied) == before


def test_an_evaluation_of_the_last_checkpoint_is_of_no_other(
    clip: Path, copied: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = {"MODEL__WEIGHTS": copied / "model_final.pth", "DATASETS__TEST": "again_dev"}
    without_mark(copied)
    said = answer(capsys, command(clip, copied, "--resume", "--eval-only", **other))
    assert "last_checkpoint is not there; write the name of another checkpoint" in said
    said = answer(capsys, command(clip, tmp_path / "none", "--resume", "--eval-only", **other))
    assert "none' holds no training whose last checkpoint could be evaluated" in said


def test_what_was_stopped_before_its_first_checkpoint_begins_anew(clip: Path, copied: Path) -> None:
    for file in ("last_checkpoint", "model_final.pth"):
        (copied / file).unlink()
    (copied / "metrics.json").write_text('{"iteration": 77}\n')
    train.main(command(clip, copied, "--resume"))
    lines = [json.loads(line) for line in (copied / "metrics.json").open()]
    assert [line["iteration"] for line in lines if line["iteration"] > 2] == []


def test_what_may_change_changes(clip: Path, copied: Path) -> None:
    overrides = {
        "SOLVER__MAX_ITER": 3,
        "SOLVER__BASE_LR": 0.01,
        "SOLVER__POLY_LR_POWER": 1.0,
        "SOLVER__CHECKPOINT_PERIOD": 1,
        "DATASETS__TEST": "again_dev",
        "MODEL__CLIP_ADAPTER__MASK_THR": 0.3,
        "DATALOADER__NUM_WORKERS": 1,
    }
    train.main(command(clip, copied, "--resume", **overrides))
    assert torch.load(copied / "model_final.pth", weights_only=True)["iteration"] == 2
    assert last_rate(copied) == pytest.approx(0.01 * (1 - 2 / 3))


def test_a_second_training_in_a_folder_is_refused_or_takes_its_place(
    clip: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(copied)
    said = answer(capsys, command(clip, copied))
    assert said == (
        f"error: config key OUTPUT_DIR: {str(copied)!r} holds an earlier training (last_checkpoint,"
        " model_final.pth, metrics.json); give --resume to go on with it, another OUTPUT_DIR, or "
        "--overwrite to remove its files"
    )
    weights = {"MODEL__WEIGHTS": copied / "model_final.pth"}
    said = answer(capsys, command(clip, copied, "--overwrite", **weights))
    assert f"--overwrite would remove {copied}/model_final.pth, which this training starts" in said
    file = {"MODEL__CLIP_ADAPTER__CLIP_PRETRAINED": copied / "model_final.pth"}
    said = answer(capsys, command(clip, copied, "--overwrite", **file))
    assert f"--overwrite would remove {copied}/model_final.pth, which this training starts" in said
    for other in ("--resume", "--eval-only"):
        said = answer(capsys, command(clip, copied, "--overwrite", other))
        assert f"--overwrite and {other} are both given" in said
    assert contents(copied) == before
    (copied / "model_0000099.pth").touch()
    (copied / "notes.txt").write_text("mine")
    train.main(command(clip, copied, "--overwrite", SOLVER__MAX_ITER=1))
    assert not (copied / "model_0000099.pth").exists()
    assert (copied / "notes.txt").read_text() == "mine"
    assert torch.load(copied / "model_final.pth", weights_only=True)["iteration"] == 0
    lines = [json.loads(line) for line in (copied / "metrics.json").open()]
    assert [line["iteration"] for line in lines] == [0]
    assert len(list(copied.glob("events.out.tfevents.*"))) == 1


def test_an_evaluation_leaves_the_training_its_config(clip: Path, copied: Path) -> None:
    kept = (copied / "config.yaml").read_bytes()
    weights = {"MODEL__WEIGHTS": copied / "model_final.pth", "DATASETS__TEST": "again_dev"}
    train.main(command(clip, copied, "--eval-only", MODEL__CLIP_ADAPTER__MASK_THR=0.25, **weights))
    assert (copied / "config.yaml").read_bytes() == kept
    assert b"MASK_THR: 0.25" not in kept
    assert "MASK_THR: 0.25" in (copied / "inference/config.yaml").read_text()


def test_an_evaluation_or_a_config_in_a_folder_is_no_training(
    clip: Path, trained: Path, tmp_path: Path
) -> None:
    weights = {"MODEL__WEIGHTS": trained / "model_final.pth", "DATASETS__TEST": "again_dev"}
    train.main(command(clip, tmp_path, "--eval-only", **weights))
    assert not (tmp_path / "config.yaml").exists()
    shutil.copy(tmp_path / "inference/config.yaml", tmp_path)
    (tmp_path / "metrics.json").touch()  # of a run that ended before its first line
    train.main(command(clip, tmp_path, SOLVER__MAX_ITER=1))
    assert (tmp_path / "model_final.pth").is_file()


def test_what_may_change_is_documented() -> None:
    text = (CONFIGS.parent / "docs" / "training.md").read_text(encoding="utf-8")
    assert [key for key in MAY_CHANGE if f"`{key}`" not in text] == []
