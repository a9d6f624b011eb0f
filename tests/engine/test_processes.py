"""How many processes a run gets, and what of their errors the user sees."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from ovseg.engine import meeting, processes
from ovseg.engine.launcher import Launch
from ovseg.engine.place import Place
from ovseg.engine.process_counts import count_processes
from ovseg.errors import UserError


@pytest.mark.parametrize(
    ("asked", "device", "present", "expected"),
    [
        (1, "cuda", 4, 1),
        (4, "cuda", 4, 4),
        (1, "cuda:3", 4, 1),
        (4, "cuda:3", 4, "--num-gpus 4: MODEL.DEVICE cuda:3 is a single GPU"),
        (8, "cuda", 4, "--num-gpus 8: this machine has 4; give --num-gpus 4 or fewer"),
        (0, "cuda", 4, "--num-gpus 0: .* MODEL.DEVICE cpu"),
    ],
)
def test_number_of_processes(
    monkeypatch: pytest.MonkeyPatch, asked: int, device: str, present: int, expected: int | str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    if isinstance(expected, int):
        assert count_processes(asked, device) == expected
    else:
        with pytest.raises(UserError, match=expected):
            count_processes(asked, device)


class Broken(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise UserError("picture a.png is broken; mend it")


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_loading_processes_lose_their_traceback(workers: int) -> None:
    with (
        pytest.raises(UserError, match=r"^picture a\.png is broken; mend it$"),
        processes.plain_errors(),
    ):
        list(DataLoader(Broken(), num_workers=workers))


def _options(**given: object) -> Namespace:
    options = {
        "num_gpus": None, "num_processes": None, "num_machines": 1, "machine_rank": 0,
        "dist_url": "auto", "all_gpus": True,
    }  # fmt: skip
    return Namespace(**{**options, **given})


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """What would be launched on a machine of four GPUs."""
    jobs: list[Launch] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(processes, "launch", lambda job, *rest, **options: jobs.append(job))
    return jobs


@pytest.mark.parametrize(
    ("device", "options", "started"),
    [
        ("cuda", _options(), 4),
        ("cuda", _options(num_gpus=3), 3),
        ("cpu", _options(num_processes=5), 5),
    ],
)
def test_a_run_starts_as_many_processes_as_asked_for(
    tmp_path: Path, launched: list[Launch], device: str, options: Namespace, started: int
) -> None:
    output = tmp_path / "new" / "folder"
    processes.start(print, options, device=device, output=output, argument="--output")
    assert [job.count for job in launched] == [started]
    assert output.is_dir()


@pytest.mark.parametrize(
    ("device", "options"),
    [
        ("cpu", _options()),
        ("cpu", _options(num_gpus=1)),
        ("cpu", _options(num_processes=1)),
        ("cuda:1", _options()),
        ("cuda", _options(all_gpus=False)),
    ],
)
def test_one_process_is_this_one(
    tmp_path: Path, launched: list[Launch], device: str, options: Namespace
) -> None:
    assert processes.start(os.getpid, options, device=device, output=tmp_path) == os.getpid()
    assert not launched


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        ("cuda", _options(num_gpus=5), "--num-gpus 5"),
        ("cuda", _options(num_processes=2), "--num-processes 2 is for CPUs.*give --num-gpus"),
        ("cpu", _options(num_gpus=8), "--num-gpus 8: .* or give --num-processes 8 in its place"),
        ("cuda", _options(num_machines=2), "--num-machines 2: give --dist-url tcp://HOST:PORT"),
        ("cpu", _options(num_machines=2, machine_rank=2), "--machine-rank 2: ranks are 0 to"),
    ],
)
def test_a_mistake_leaves_no_folder(
    tmp_path: Path, launched: list[Launch], device: str, options: Namespace, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        processes.start(print, options, device=device, output=tmp_path / "out")
    assert not launched
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("url", ["127.0.0.1:5000", "file:///tmp/x", "tcp://host", "tcp://host:x"])
def test_wrong_url(url: str) -> None:
    with pytest.raises(UserError, match="give tcp://HOST:PORT"):
        Launch(1, 2, 0, url).address()


def test_a_process_of_another_system_with_this_name_is_not_looked_for() -> None:
    watching = object.__new__(meeting.Meeting)  # without the thread that ends this process
    watching._signs = {}
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    store = dist.HashStore()
    for running, gone in ((meeting._running_system(), True), ([socket.gethostname(), "x"], False)):
        sign = {"host": socket.gethostname(), "running": running, "pid": ended.pid, "machine": 1}
        store.set("life/1", json.dumps(sign))
        assert watching._is_gone(store, 1) == gone


def test_a_mistake_in_a_process_is_one_line(tmp_path: Path) -> None:
    def work() -> None:
        raise UserError("picture a.png is broken;\nmend it")

    with pytest.raises(UserError, match="broken;\nmend it"):
        processes.start(work, _options(), device="cpu", output=tmp_path)


@pytest.mark.parametrize(
    ("started_by", "local_rank", "present", "expected"),
    [
        ("torchrun", 1, 4, 1),
        ("srun", 3, 4, 3),
        ("srun", 3, 1, 0),  # SLURM shows each process its own alone
        ("torchrun", 0, 1, 0),
        ("torchrun", 1, 1, None),
        ("launch", 4, 4, None),
    ],
)
def test_each_process_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, started_by: str, local_rank: int, present: int,
    expected: int | None,
) -> None:  # fmt: skip
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    place = Place(local_rank, 8, local_rank, 0, "localhost", 1, started_by)
    if expected is None:
        with pytest.raises(UserError, match=f"no GPU of its own .*; start {present} processes"):
            processes._choose_gpu(place)
    else:
        processes._choose_gpu(place)
    assert chosen == ([] if expected is None else [expected])
