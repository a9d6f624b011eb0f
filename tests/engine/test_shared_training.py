"""Two processes train and evaluate as one does; a training that is asked to end is saved."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import ROOT

from ovseg.cli import train
from tools.compare_processes import TOLERANCE, difference, run_way

#: what torch says of itself
LIBRARIES = re.compile(r"Warning: |warnings\.warn|No CUDA runtime|^  return torch\._C")


def test_two_processes_train_and_evaluate_as_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    # both in new processes, so that nothing that ran here before has a say
    for way, folder in (("1", one), ("2", two)):
        run_way(way, ["--steps", "20", "--size", "64", "--images", "3", "1"], folder)
    largest, same_confusion = difference(one, two)
    assert largest < TOLERANCE
    assert same_confusion
    first, second = (np.load(folder / "batch_norm.npz") for folder in (one, two))
    assert len(first.files) > 50
    for name in first.files:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-3, atol=1e-4)


def command(output: Path, *options: str) -> list[str]:
    return [
        "--config-file", str(ROOT / "configs" / "ovseg_tiny.yaml"), *options,
        "MODEL.WEIGHTS", "ovseg://ovseg_tiny.pth", "MODEL.DEVICE", "cpu",
        "DATASETS.TRAIN", "stickerscenes_frozen,", "DATASETS.TEST", "()",
        "SOLVER.MAX_ITER", "1000", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.CHECKPOINT_PERIOD", "5",
        "INPUT.CROP.SIZE", "(32,32)", "INPUT.SIZE_DIVISIBILITY", "32",
        "INPUT.MIN_SIZE_TRAIN", "(32,)", "OUTPUT_DIR", str(output),
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_asked_to_end_is_saved(number: signal.Signals, tmp_path: Path) -> None:
    options = ("--num-processes", "2") if number == signal.SIGTERM else ()
    process = subprocess.Popen(
        [sys.executable, "train_net.py", *command(tmp_path, *options)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 240
        while not (tmp_path / "last_checkpoint").exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 128 + number
    lines = [line for line in err.splitlines() if not LIBRARIES.search(line)]
    assert len(lines) == 1, err
    assert lines[0].startswith("terminated: " if number == signal.SIGTERM else "interrupted: ")
    last = tmp_path / (tmp_path / "last_checkpoint").read_text()
    done = torch.load(last, weights_only=True)["iteration"]
    assert last.name == f"model_{done:07d}.pth"
    # it goes on from there
    train.main([*command(tmp_path, "--resume"), "SOLVER.MAX_ITER", str(done + 2)])
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert final["iteration"] == done + 1


def by_torchrun(output: Path, script: str, restarts: int) -> subprocess.CompletedProcess[str]:
    """Two processes train for ten iterations."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node", "2", "--max-restarts", str(restarts), script]
    options = ["SOLVER.MAX_ITER", "10", "SOLVER.CHECKPOINT_PERIOD", "4"]
    return subprocess.run(
        [*launcher, *command(output), *options], cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip


def test_torchrun_restarts_a_training_that_lost_a_process(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    run = by_torchrun(killed, "tests/killed_once.py", restarts=1)
    assert run.returncode == 0, run.stderr
    assert "error: process 1 of 2 was killed or has crashed" in run.stderr
    assert "model_0000003.pth" in (killed / "log.txt").read_text()  # where it went on
    rows = [json.loads(line) for line in (killed / "metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == sorted({row["iteration"] for row in rows})
    final = torch.load(killed / "model_final.pth", weights_only=True)
    assert final["iteration"] == 9
    # a new training that is refused there does not go on from it when it is started again
    refused = by_torchrun(killed, "train_net.py", restarts=1)
    assert refused.returncode != 0
    assert refused.stderr.count("give --resume to go on") == 2
    assert "going on" not in refused.stdout
    if "OVSEG_ALL_WAYS" in os.environ:
        assert by_torchrun(tmp_path / "whole", "train_net.py", restarts=0).returncode == 0
        whole = torch.load(tmp_path / "whole" / "model_final.pth", weights_only=True)
        assert whole["model"].keys() == final["model"].keys()
        for name, weight in whole["model"].items():
            assert torch.equal(weight, final["model"][name])
