"""The options of commands that several processes can share, and how such commands begin.

PyTorch is imported only where there are several processes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ovseg.engine.place import find_place
from ovseg.errors import Parser

#: what :func:`add_processes` adds: it decides who does the work, not what comes out
PROCESS_OPTIONS = (
    "num_gpus", "num_processes", "num_machines", "machine_rank", "dist_url", "all_gpus",
)  # fmt: skip


def add_processes(parser: Parser, all_gpus: bool) -> None:
    """The processes of a run: ``--num-gpus``, and of several machines where they meet.

    They are for runs that the command starts itself; torchrun and srun say the same in their way.

    Args:
        parser: to which they are added.
        all_gpus: without ``--num-gpus`` all there are, or one.
    """
    add = parser.add_argument
    parser.set_defaults(all_gpus=all_gpus)
    add("--num-gpus", type=_count(0), metavar="N",
        help="GPUs to use on each machine, with a process each; default: "
        f"{'all there are' if all_gpus else 1}")  # fmt: skip
    add("--num-processes", type=_count(1), metavar="N",
        help="processes on the CPU of each machine, where no GPU is used; default: 1")  # fmt: skip
    add("--num-machines", type=_count(1), default=1, metavar="N",
        help="machines that take part; default: 1")  # fmt: skip
    add(
        "--machine-rank",
        type=_count(0),
        default=0,
        metavar="N",
        help="number of this machine, from 0",
    )
    add("--dist-url", default="auto", metavar="URL",
        help="address where several machines meet: tcp://HOST:PORT of machine 0")  # fmt: skip


def _count(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, {least} or more")
        return value

    return read


@contextmanager
def several_processes() -> Iterator[None]:
    """The body of a command: where torchrun or srun has started several, one says what is wrong."""
    place = find_place()
    if place is None:
        yield
        return
    from ovseg.engine.joining import joined

    with joined(place):
        yield
