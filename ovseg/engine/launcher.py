"""Processes that a command starts itself, on one machine or on several."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from json import dumps, loads
from multiprocessing.process import BaseProcess
from typing import Any
from urllib.parse import urlsplit

import torch.distributed as dist

from ovseg.engine.joining import open_store
from ovseg.engine.meeting import End, gone_line
from ovseg.engine.place import Place
from ovseg.errors import UserError, say_error

_GRACE = 30.0  # seconds that the other processes have to end by themselves


@dataclass(frozen=True)
class Launch:
    """Processes to start.

    count: on this machine. machines: how many there are. machine: the number of this one. url:
    ``tcp://HOST:PORT`` where they meet; ``auto`` on a single machine.
    """

    count: int
    machines: int = 1
    machine: int = 0
    url: str = "auto"

    def address(self) -> tuple[str, int]:
        """Host and port; port 0 is any that is free.

        Raises:
            UserError: the URL is none of that form.
        """
        if self.url == "auto":
            return "127.0.0.1", 0
        try:
            parts = urlsplit(self.url)
            if parts.scheme == "tcp" and parts.hostname and parts.port:
                return parts.hostname, parts.port
        except ValueError:
            pass
        raise UserError(f"--dist-url {self.url!r}: give tcp://HOST:PORT")


def launch(
    job: Launch,
    child: Callable[[Place, dist.Store, Any], None],
    arguments: Any,
    on_cpu: bool,
) -> None:
    """Start processes, and wait for them.

    The store in which all meet is kept by the command on the first machine, not by one of its
    processes, so that it outlives each of them.

    Args:
        job: how many, and where they meet.
        child: is called in each with its place, the store, and ``arguments``.
        arguments: that can be pickled.
        on_cpu: the processes share the cores.

    Raises:
        SystemExit: a process has failed, and said why; with its exit code.
        UserError: the processes cannot meet.
    """
    host, port = job.address()
    server = open_store(host, port, keep=job.machine == 0)
    store = dist.PrefixStore("ovseg", server)
    world = job.count * job.machines
    first = job.machine * job.count
    places = [
        Place(first + local, world, local, job.machine, host, server.port, "launch")
        for local in range(job.count)
    ]
    context = multiprocessing.get_context("spawn")
    usual = multiprocessing.get_start_method()
    processes: list[BaseProcess] = [
        context.Process(target=_run_child, args=(place, usual, child, arguments))
        for place in places
    ]
    with _shared_cores(job.count if on_cpu else 0), _relayed_signals(processes) as asked:
        for process in processes:
            process.start()
        end = _wait(processes, places, store, asked)
        _keep_store(job, store, world, end)
    if asked:
        raise SystemExit(128 + asked[0])
    if end is not None:
        raise SystemExit(end.code)


def _run_child(
    place: Place,
    start_method: str,
    child: Callable[[Place, dist.Store, Any], None],
    arguments: Any,
) -> None:
    # else loading processes would be started as this one, and import all anew
    multiprocessing.set_start_method(start_method, force=True)
    child(place, dist.PrefixStore("ovseg", open_store(place.host, place.port, False)), arguments)


def _wait(
    processes: Sequence[BaseProcess], places: Sequence[Place], store: dist.Store, asked: list[int]
) -> End | None:
    """Wait until all have ended; once one has failed the others have a while. Returns why."""
    end, until = None, float("inf")
    while running := [process for process in processes if process.is_alive()]:
        multiprocessing.connection.wait([process.sentinel for process in running], timeout=1)
        if end is None:
            end = _failure(processes, places, store, asked)
            until = time.monotonic() + _GRACE
        elif time.monotonic() > until:
            for process in running:
                process.kill()
    return end or _failure(processes, places, store, asked)


def _failure(
    processes: Sequence[BaseProcess], places: Sequence[Place], store: dist.Store, asked: list[int]
) -> End | None:
    """Why a process has failed, if one has; said here unless it was, or the user has ``asked``."""
    for process, place in zip(processes, places, strict=True):
        if not process.exitcode:  # it runs, or has done its work
            continue
        if process.exitcode > 0:
            return End(place.rank, process.exitcode)
        how = f"{signal.Signals(-process.exitcode).name}, process id {process.pid}"
        mine = End(-1, 1, gone_line(place.rank, place.world, how))
        recorded = End(**loads(store.compare_set("end", "", dumps(asdict(mine)))))
        if recorded == mine and not asked:
            say_error(mine.line)
        return recorded
    return None


def _keep_store(job: Launch, store: dist.Store, world: int, end: End | None) -> None:
    """Keep the store until the processes of the other machines have done their work, too."""
    if job.machine or job.machines == 1 or end is not None:
        if job.machines > 1 and not job.machine:
            time.sleep(5)  # for the others to read why
        return
    while not store.check(["end"]) and not store.check([f"done/{rank}" for rank in range(world)]):
        time.sleep(0.2)
    time.sleep(1)


@contextmanager
def _shared_cores(count: int) -> Iterator[None]:
    """Let processes that are started share the cores; 0: they need not."""
    if not count or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ["OMP_NUM_THREADS"] = str(max(1, (cores or 1) // count))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


@contextmanager
def _relayed_signals(processes: Sequence[BaseProcess]) -> Iterator[list[int]]:
    """Pass Ctrl-C and SIGTERM on to processes, as SIGTERM; the list gets the first that came."""
    asked: list[int] = []

    def on_signal(number: int, _: object) -> None:
        if asked and number == signal.SIGINT:
            for process in processes:
                if process.pid is not None:
                    process.kill()
            os._exit(130)
        if asked:
            return
        asked.append(number)
        name = "interrupted" if number == signal.SIGINT else "terminated"
        again = "; Ctrl-C again ends at once" if number == signal.SIGINT else ""
        os.write(2, f"{name}: the processes save what they can and end{again}\n".encode())
        for process in processes:
            if process.pid is not None:
                process.terminate()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
