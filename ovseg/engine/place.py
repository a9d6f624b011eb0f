"""Which of several processes this one is, where torchrun or SLURM has started it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ovseg.errors import UserError

#: ports from which one is chosen for a SLURM job, by its numbers
_PORTS = range(20000, 30000)


@dataclass(frozen=True)
class Place:
    """One process among those of a run.

    Attributes:
        rank: its number among all, from 0.
        world: how many there are.
        local_rank: its number on its machine, from 0; that of its GPU.
        machine: the number of its machine.
        host, port: where the processes meet.
        started_by: ``torchrun``, ``srun`` or the command itself, for messages.
    """

    rank: int
    world: int
    local_rank: int
    machine: int
    host: str
    port: int
    started_by: str


def find_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that the environment gives this process; None where it was started alone.

    Read are torchrun's variables (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``GROUP_RANK``,
    ``MASTER_ADDR``, ``MASTER_PORT``), which other launchers set too, and those of ``srun``
    (``SLURM_PROCID``, ``SLURM_NTASKS``, ``SLURM_LOCALID``, ``SLURM_NODEID``, ``SLURM_NODELIST``).
    torchrun's come first: ``srun torchrun`` sets both.

    Raises:
        UserError: a variable is missing or cannot be read.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _of_torchrun(environment)
    if _is_srun(environment):
        return _of_srun(environment)
    return None


def is_first_process() -> bool:
    """Whether this process, before all have joined, is the one that speaks for them."""
    place = find_place()
    return place is None or place.rank == 0


def is_restart(state: Path, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun or SLURM has started this run again, so that it goes on from ``state``.

    torchrun also starts a command again that was refused because an earlier run had left its
    state. That one is older than torchrun itself, and is not gone on from.

    Args:
        state: the file that tells what a run goes on from; it may not be there yet.
        environment: the variables of torchrun and SLURM.
    """
    if int(environment.get("SLURM_RESTART_COUNT") or 0):
        return True
    count = environment.get("TORCHELASTIC_RESTART_COUNT")
    if not count:
        return False
    began = _parent_began()
    if began is None or not state.is_file():
        return int(count) > 0
    # also where torchrun does not count, as after the loss of a machine
    return state.stat().st_mtime >= began


def _parent_began() -> float | None:
    """When the process that started this one began, in seconds of the epoch, rounded down to one;
    None where the system does not tell."""
    try:
        fields = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
        lines = Path("/proc/stat").read_text().splitlines()
        booted = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
        return booted + int(fields[19]) // os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration):
        return None


def _of_torchrun(environment: Mapping[str, str]) -> Place | None:
    world = _number(environment, "WORLD_SIZE")
    if world == 1:
        return None
    if "MASTER_ADDR" not in environment:
        raise UserError("RANK and WORLD_SIZE are set, and MASTER_ADDR is not; start by torchrun")
    local_rank = _number(environment, "LOCAL_RANK", 0)
    return Place(
        rank=_number(environment, "RANK"),
        world=world,
        local_rank=local_rank,
        machine=_number(environment, "GROUP_RANK", 0),
        host=environment["MASTER_ADDR"],
        port=_number(environment, "MASTER_PORT"),
        started_by="torchrun",
    )


def _is_srun(environment: Mapping[str, str]) -> bool:
    """Whether srun has started several processes.

    A batch script by itself, and the shell of ``salloc``, have the job's variables too, but are no
    step of it.
    """
    if not {"SLURM_PROCID", "SLURM_LOCALID"} <= environment.keys():
        return False
    if "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment:
        return False
    return _tasks(environment) > 1


def _tasks(environment: Mapping[str, str]) -> int:
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    return _number(environment, name, 1)


def _of_srun(environment: Mapping[str, str]) -> Place:
    names = ("SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST")
    nodes = next((environment[name] for name in names if environment.get(name)), None)
    if nodes is None and "MASTER_ADDR" not in environment:
        raise UserError("SLURM_NODELIST is not set; give MASTER_ADDR, the first machine's name")
    # of a job's steps each has its own, which may run at the same time
    number = _number(environment, "SLURM_JOB_ID", 0) + 7 * _number(environment, "SLURM_STEP_ID", 0)
    return Place(
        rank=_number(environment, "SLURM_PROCID"),
        world=_tasks(environment),
        local_rank=_number(environment, "SLURM_LOCALID"),
        machine=_number(environment, "SLURM_NODEID", 0),
        host=environment.get("MASTER_ADDR") or first_host(nodes or ""),
        port=_number(environment, "MASTER_PORT", _PORTS[number % len(_PORTS)]),
        started_by="srun",
    )


def first_host(nodes: str) -> str:
    """The first machine of a list as SLURM writes them: ``gpu[03-05,9],login1`` is ``gpu03``."""
    first = re.match(r"(?P<name>[^,\[]+)(?:\[(?P<number>\d+)[^\]]*\](?P<rest>[^,]*))?", nodes)
    if first is None:
        raise UserError(f"SLURM_NODELIST {nodes!r} cannot be read; give MASTER_ADDR")
    return f"{first['name']}{first['number'] or ''}{first['rest'] or ''}"


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if not text:
        if default is None:
            raise UserError(f"{name} is not set; start by torchrun or srun")
        return default
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{name} {text!r} is no number; start by torchrun or srun") from None
