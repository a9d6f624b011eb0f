"""A training goes on without images that cannot be read, reproducibly, up to a bound."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import tiny_world, train_command

from ovseg.cli import train
from ovseg.data.loader import Example, SeededStream, TrainLoader
from ovseg.data.lost_images import LostImages, allowed_losses
from ovseg.errors import UserError


def test_how_many_may_be_lost() -> None:
    assert allowed_losses(100_000, 0.01) == 1000
    assert allowed_losses(400, 0.01) == 10
    assert allowed_losses(12, 0.01) == 6
    assert allowed_losses(1, 0.01) == 0
    assert allowed_losses(400, 0) == 0


def test_losses_are_counted_once() -> None:
    lost = LostImages(1)
    lost.add("a", "a is broken")
    lost.add("a", "a is broken")
    with pytest.raises(UserError, match=r"2 training images cannot be used, .* 1 that may be left"):
        lost.add("b", "b is broken")


class Mapper:
    """Draws from the generators, as augmentation does; some files are broken."""

    def __init__(self, broken: set[str]) -> None:
        self.broken = broken

    def __call__(self, example: Example) -> Example:
        import numpy as np

        if example["file_name"] in self.broken:
            raise UserError(f"{example['file_name']} is broken")
        return {"name": example["file_name"], "draw": float(np.random.rand())}


def batches(broken: set[str], workers: int = 0, start: int = 0, count: int = 12) -> Any:
    dataset = [{"file_name": f"{index}.jpg"} for index in range(9)]
    stream = SeededStream(dataset, Mapper(broken), seed=5, allowed=4)
    loader = TrainLoader(stream, batch_size=2, num_workers=workers, allowed=4)
    loader.start_iter = start
    found = [batch for batch, _ in zip(loader, range(count), strict=False)]
    return found, loader.lost.reasons


def test_others_take_their_place() -> None:
    sound, nothing = batches(set())
    assert nothing == {}
    found, lost = batches({"2.jpg", "7.jpg"})
    assert lost == {"2.jpg": "2.jpg is broken", "7.jpg": "7.jpg is broken"}
    pairs = [pair for both in zip(sound, found, strict=True) for pair in zip(*both, strict=True)]
    assert len(pairs) == 24
    replaced = 0
    for as_it_was, example in pairs:
        assert set(example) == {"name", "draw"}
        assert example["draw"] == as_it_was["draw"]
        if as_it_was["name"] in lost:
            replaced += 1
            assert example["name"] not in lost
        else:
            assert example == as_it_was
    assert replaced > 3


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_resuming_make_no_difference(workers: int) -> None:
    broken = {"0.jpg", "4.jpg", "8.jpg"}
    expected, lost = batches(broken)
    assert set(lost) == broken
    assert batches(broken, workers) == (expected, lost)
    assert batches(broken, workers, start=7, count=5)[0] == expected[7:]


def test_too_many_are_an_error() -> None:
    with pytest.raises(UserError, match=r"5 training images cannot be used, .*MAX_LOST"):
        batches({f"{index}.jpg" for index in range(5)}, count=100)
    with pytest.raises(UserError, match="cannot be used"):
        batches({f"{index}.jpg" for index in range(9)})


command = functools.partial(
    train_command, DATASETS__TRAIN="lost_train", DATASETS__TEST="()", SOLVER__MAX_ITER=6,
    DATALOADER__NUM_WORKERS=1,
)  # fmt: skip


def weights(output: Path) -> Any:
    return torch.load(output / "model_final.pth", weights_only=True)


def test_training_goes_on_and_resumes(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    with tiny_world(tmp_path / "world", prefix="lost") as clip:
        images = tmp_path / "world/stickerscenes/images/train"
        path = images / "001.png"
        path.write_bytes(path.read_bytes()[:-30])
        train.main(command(clip, tmp_path / "whole"))
        log = (tmp_path / "whole/log.txt").read_text()
        assert re.search(r"left out an image, 1 of at most 2: .*001\.png", log)
        assert "1 image was left out" in log
        whole = weights(tmp_path / "whole")
        assert list(whole["trainer"]["hooks"]["LostHook"]) == [str(path)]

        half = {"SOLVER__CHECKPOINT_PERIOD": 3, "DATALOADER__NUM_WORKERS": 0}
        train.main(command(clip, tmp_path / "half", **half))
        (tmp_path / "half/model_final.pth").unlink()
        (tmp_path / "half/last_checkpoint").write_text("model_0000002.pth")
        train.main(command(clip, tmp_path / "half", "--resume", **half))
        resumed = weights(tmp_path / "half")
        assert all(
            torch.equal(whole["model"][key], resumed["model"][key]) for key in whole["model"]
        )
        # once, though the process that trains reads it several times
        assert (tmp_path / "half/log.txt").read_text().count("left out an image") == 1
        assert resumed["trainer"]["hooks"]["LostHook"] == whole["trainer"]["hooks"]["LostHook"]


def test_none_may_be_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "world").mkdir()
    with tiny_world(tmp_path / "world", prefix="lost") as clip:
        path = tmp_path / "world/stickerscenes/images/train/001.png"
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(SystemExit) as ended:
            train.main(command(clip, tmp_path / "out", DATALOADER__MAX_LOST=0.0))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "001.png' cannot be read" in line


def test_all_files_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "world").mkdir()
    with tiny_world(tmp_path / "world", prefix="lost") as clip:
        path = tmp_path / "world/stickerscenes/images/train/001.png"
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(SystemExit) as ended:
            train.main(command(clip, tmp_path / "out", "--check-data", DATALOADER__MAX_LOST=0.0))
    assert ended.value.code == 2
    assert "1 file cannot be read, more than the 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # before the run
