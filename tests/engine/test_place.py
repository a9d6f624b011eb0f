"""Which of several processes this one is, by the variables of torchrun and of SLURM."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ovseg.engine import place
from ovseg.engine.place import Place, find_place, first_host, is_restart
from ovseg.errors import UserError

TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "GROUP_RANK": "1",
    "MASTER_ADDR": "gpu1", "MASTER_PORT": "29400",
}  # fmt: skip
SLURM = {
    "SLURM_PROCID": "9", "SLURM_NTASKS": "16", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    "SLURM_NODELIST": "gpu[03-04]",
}  # fmt: skip


def test_torchruns_variables() -> None:
    assert find_place(TORCHRUN) == Place(5, 8, 1, 1, "gpu1", 29400, "torchrun")
    # one process is started alone, whoever starts it
    assert find_place(TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}) is None
    # torchrun may itself be started by srun
    assert find_place(SLURM | TORCHRUN) == find_place(TORCHRUN)


def test_sruns_variables() -> None:
    assert find_place(SLURM) == Place(9, 16, 1, 1, "gpu03", 20000, "srun")
    job = SLURM | {"SLURM_JOB_ID": "123456", "SLURM_STEP_ID": "0"}
    place = find_place(job)
    assert place is not None
    assert place.port == 20000 + 123456 % 10000
    chosen = find_place(job | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5000"})
    assert chosen is not None
    assert (chosen.host, chosen.port) == ("10.0.0.1", 5000)
    # two steps of a job at the same time do not share a port
    other = find_place(job | {"SLURM_STEP_ID": "3"})
    assert other is not None
    assert other.port != place.port


@pytest.mark.parametrize(
    "alone",
    [
        {},
        SLURM | {"SLURM_NTASKS": "1"},
        # a batch script itself, and a shell of salloc
        SLURM | {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0"},
        SLURM | {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_NTASKS": "16", "SLURM_NODELIST": "gpu[03-04]"},
    ],
)
def test_started_alone(alone: dict[str, str]) -> None:
    assert find_place(alone) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu7", "gpu7"),
        ("gpu[03-05,9]", "gpu03"),
        ("gpu[9,11-12],login1", "gpu9"),
        ("a-b12,a-b13", "a-b12"),
        ("rack[1-2]-node,x", "rack1-node"),
        ("host.example.org", "host.example.org"),
    ],
)
def test_first_host_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (TORCHRUN | {"MASTER_PORT": "x"}, "MASTER_PORT 'x' is no number"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is not"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_NODELIST"}, "SLURM_NODELIST is not set"),
        (SLURM | {"SLURM_NODELIST": "[1-2]"}, r"SLURM_NODELIST '\[1-2\]' cannot be read"),
    ],
)
def test_variables_that_are_wrong(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_place(environment)


def test_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "last_checkpoint"
    assert not is_restart(state, {})
    assert is_restart(state, {"TORCHELASTIC_RESTART_COUNT": "2"})
    assert is_restart(state, {"TORCHELASTIC_RESTART_COUNT": "0", "SLURM_RESTART_COUNT": "1"})
    # a state that this torchrun's processes have written, whatever it counts, and an older one
    state.write_text("model_0000009.pth")
    for count in ("0", "1"):
        assert is_restart(state, {"TORCHELASTIC_RESTART_COUNT": count})
    os.utime(state, (0, 0))
    for count in ("0", "1"):
        assert not is_restart(state, {"TORCHELASTIC_RESTART_COUNT": count})
    # where nobody knows when torchrun began, its count is what there is
    monkeypatch.setattr(place, "_parent_began", lambda: None)
    assert is_restart(state, {"TORCHELASTIC_RESTART_COUNT": "1"})


def test_when_the_parent_began() -> None:
    before = time.time()
    began = place._parent_began()
    assert began is None or 0 < began <= before
    child = "import time; from ovseg.engine import place; print(place._parent_began())"
    shell = f"{sys.executable} -c {shlex.quote(child)}; true"
    said = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    if began is not None:
        assert before - 2 <= float(said) <= time.time()
