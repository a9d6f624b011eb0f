"""A command of several processes, for tests: python process_script.py WORK --output DIR ..."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.utils import comm

from ovseg.engine import stopping
from ovseg.engine.joining import stop_agreed
from ovseg.engine.process_options import add_processes, several_processes
from ovseg.engine.processes import start
from ovseg.errors import Parser, UserError, cli_errors


def work(kind: str, output: str) -> None:
    """Something that is right, or goes wrong in the process of rank 1."""
    rank, world = comm.get_rank(), comm.get_world_size()
    Path(output, f"here_{rank}").write_text(f"{comm.get_local_rank()} of {comm.get_local_size()}")
    if kind == "sum":
        total = torch.tensor([float(rank + 1)])
        if world > 1:
            dist.all_reduce(total)
        # one write: where output is not buffered, print writes the end of a line by itself
        sys.stdout.write(f"sum {total.item()} of {world}\n")
    if kind in {"raise", "raise while others compute"} and rank == 1:
        raise UserError("picture a.png is broken;\nmend it")
    if kind == "bug" and rank == 1:
        raise ZeroDivisionError("division by zero")
    if kind.startswith("kill") and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind in {"raise", "bug", "kill"}:
        comm.synchronize()
    elif kind in {"raise while others compute", "kill while others compute", "wait"}:
        time.sleep(100)
    elif kind == "steps":
        steps(Path(output))
    elif kind == "deaf":  # a step that takes long
        with stopping.step_by_step("this step is ended"):
            _ready(output)
            time.sleep(100)


def _ready(output: str | Path) -> None:
    """Signals are caught from here on."""
    Path(output, f"ready_{comm.get_rank()}").touch()


def steps(output: Path) -> None:
    """Ends after the same step in all processes when one is asked to."""
    with stopping.step_by_step("this step is ended"):
        _ready(output)
        for step in range(10_000):
            comm.synchronize()
            time.sleep(0.01)
            if stop_agreed(step):
                Path(output, f"stopped_{comm.get_rank()}").write_text(str(step))
                comm.synchronize()
                raise stopping.stopped()


def main() -> None:
    with cli_errors(), several_processes():
        parser = Parser()
        parser.add_argument("work")
        parser.add_argument("--output")
        parser.add_argument("--colour", default="red")
        add_processes(parser, all_gpus=False)
        args = parser.parse_args()
        if args.work == "mistake":
            raise UserError("there is no such work")
        run = functools.partial(work, args.work, args.output)
        start(run, args, device="cpu", output=args.output, argument="--output")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
