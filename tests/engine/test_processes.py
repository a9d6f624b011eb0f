"""How many processes a run gets, and what of their errors the user sees."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.multiprocessing import ProcessExitedException
from torch.utils.data import DataLoader

from ovseg.engine import processes
from ovseg.errors import UserError


@pytest.mark.parametrize(
    ("asked", "device", "present", "expected"),
    [
        (1, "cpu", 0, 1),
        (0, "cpu", 0, 1),
        (1, "cuda", 4, 1),
        (4, "cuda", 4, 4),
        (1, "cuda:3", 4, 1),
        (4, "cuda:3", 4, "--num-gpus 4: MODEL.DEVICE cuda:3 is a single GPU"),
        (8, "cpu", 0, "--num-gpus 8 .*this machine has no GPU; leave"),
        (2, "cpu", 4, "--num-gpus 2 .*MODEL.DEVICE is cpu"),
        (8, "cuda", 4, "--num-gpus 8: this machine has 4; give --num-gpus 4 or fewer"),
        (0, "cuda", 4, "--num-gpus 0: .* MODEL.DEVICE cpu"),
        (-1, "cpu", 0, "--num-gpus -1"),
    ],
)
def test_number_of_processes(
    monkeypatch: pytest.MonkeyPatch, asked: int, device: str, present: int, expected: int | str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    cfg = SimpleNamespace(MODEL=SimpleNamespace(DEVICE=device))
    if isinstance(expected, int):
        assert processes.count_processes(asked, cfg) == expected
    else:
        with pytest.raises(UserError, match=expected):
            processes.count_processes(asked, cfg)


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


def test_exit_code_of_a_training_process_is_passed_on() -> None:
    with pytest.raises(SystemExit) as caught, processes.plain_errors():
        raise ProcessExitedException("ended", error_index=0, error_pid=1, exit_code=2)
    assert caught.value.code == 2


def _config(device: str) -> SimpleNamespace:
    return SimpleNamespace(MODEL=SimpleNamespace(DEVICE=device))


def _options(num_gpus: int | None, num_machines: int = 1, dist_url: str = "auto") -> Namespace:
    return Namespace(
        num_gpus=num_gpus, num_machines=num_machines, machine_rank=0, dist_url=dist_url
    )


@pytest.mark.parametrize(
    ("device", "num_gpus", "started"),
    [("cpu", None, 1), ("cuda", None, 4), ("cuda:1", None, 1), ("cuda", 3, 3)],
)
def test_a_run_starts_as_many_processes_as_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    num_gpus: int | None,
    started: int,
) -> None:
    counts = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(processes, "launch", lambda run, count, **options: counts.append(count))
    output = tmp_path / "new" / "folder"
    processes.start(print, _config(device), _options(num_gpus), str(output), "--output")
    assert counts == [started]
    assert output.is_dir()


def test_a_mistake_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for options, expected in (
        (_options(5), "--num-gpus 5"),
        (_options(4, num_machines=2), "--num-machines 2: give --dist-url tcp://HOST:PORT"),
    ):
        with pytest.raises(UserError, match=expected):
            processes.start(print, _config("cuda"), options, str(tmp_path / "out"), "--output")
    assert not (tmp_path / "out").exists()


def test_a_mistake_in_a_process_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(cfg: object, args: object) -> None:
        raise UserError("picture a.png is broken;\nmend it")

    with pytest.raises(SystemExit) as caught:
        processes.start(run, _config("cpu"), _options(None), str(tmp_path), "--output")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: picture a.png is broken; mend it\n"
