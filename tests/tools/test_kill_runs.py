"""Runs that are killed go on and lose nothing; and the script sees when something is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tools import kill_runs


def test_killed_runs_lose_nothing(tmp_path: Path) -> None:
    report = tmp_path / "kills.json"
    kill_runs.main(
        ["--kills", "4", "--kinds", "training", "preparation", "--report", str(report)]
    )  # fmt: skip
    found = json.loads(report.read_text())
    assert [found[kind]["kills"] for kind in ("training", "preparation")] == [2, 2]
    for tally in found.values():
        assert tally["files_read"] > 0
        assert tally["broken"] == tally["different"] == tally["problems"] == []


@pytest.mark.parametrize(
    "name", ["a.pth", "a.png", "a.npz", "a.json", "a.yaml", "a.tar", "a.csv", "last_checkpoint"]
)
def test_truncated_files_are_seen(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.pth":
        torch.save({"w": torch.ones(5)}, path)
    elif name == "a.png":
        Image.fromarray(np.full((20, 20, 3), 7, np.uint8)).save(path)
    elif name == "a.npz":
        np.savez(path, x=np.arange(50))
    elif name == "a.json":
        path.write_text('{"a": [1, 2]}')
    elif name == "a.yaml":
        path.write_text("A: {b: [1, 2]}\n")
    elif name == "a.tar":
        import tarfile

        (tmp_path / "member.txt").write_text("word" * 5000)
        with tarfile.open(path, "w") as tar:
            tar.add(tmp_path / "member.txt", "member.txt")
        (tmp_path / "member.txt").unlink()
    elif name == "a.csv":
        path.write_text("image,noun\na.png,cat\n")
    else:
        (tmp_path / "model_1.pth").touch()
        path.write_text("model_1.pth")
    kill_runs.read_whole(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 5])
    problems = [problem for problem in kill_runs.broken_files(tmp_path) if problem is not None]
    assert any(problem.startswith(f"{name}: ") for problem in problems)


def test_other_results_are_seen() -> None:
    tally = kill_runs.Tally()
    kind = kill_runs.Kind("", lambda *_: [], lambda _: {"same": "1", "other": "2", "more": "3"})
    kill_runs._compare(tally, kind, {"same": "1", "other": "0", "lost": "4"}, Path())
    assert tally.different == ["lost", "more", "other"]
    assert not tally.is_fine()
