"""What the processes of a run tell each other: that they mean the same run, and why one has ended.

They meet in a key-value store of torch. Each gives a sign of life there, and a thread of each looks
for the others' signs. When one fails or vanishes, the first that notices records why and says so;
the others end without a word.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch.distributed as dist

from ovseg.engine.place import Place
from ovseg.errors import UserError, say_error
from ovseg.utils.io import machine_name

logger = logging.getLogger(__name__)

_POLL = 1.0  # seconds between two looks at the others
_SILENCE = 40.0  # seconds without a sign of life after which a process counts as gone
_GRACE = 10.0  # seconds that a process has to end by itself, once the run has failed
_GRACE_SAVING = 90.0  # the same, where a checkpoint may be written
_KEEPING = 60.0  # seconds that the keeper of the store waits for the others to read why all end
ARRIVAL = 600.0  # seconds that processes wait for the others to come


@dataclass(frozen=True)
class End:
    """Why a run ends early: which process noticed, the exit code of all, and its line, if any."""

    rank: int
    code: int
    line: str = ""


class Meeting:
    """This process among the others of its run.

    Attributes:
        agreed: all have said that they mean the same run.
    """

    def __init__(self, place: Place, store: dist.Store) -> None:
        """Come to the meeting; the thread that looks after the others starts."""
        self.place = place
        self.store = store
        self.agreed = False
        self._over = threading.Event()
        self._signs: dict[int, tuple[str, float]] = {}
        self._show_life(store, 0)
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="watch of processes")
        self._watcher.start()

    def agree(self, settings: Mapping[str, str]) -> None:
        """Wait for all others, and find out whether they mean the same run.

        Args:
            settings: what has to be the same, by its name.

        Raises:
            UserError: another process has other settings, or has not come.
        """
        self.store.set(f"settings/{self.place.rank}", json.dumps(dict(settings)))
        first: dict[str, str] = {}
        for rank in range(self.place.world):
            self._wait_for(f"settings/{rank}", rank)
            theirs = json.loads(self.store.get(f"settings/{rank}"))
            first = first or theirs
            for name in sorted(first.keys() | theirs.keys()):
                if first.get(name) != theirs.get(name):
                    raise UserError(
                        f"process {rank} of {self.place.world} has {name} "
                        f"{theirs.get(name, 'not set')}, process 0 has "
                        f"{first.get(name, 'not set')}; give all the same command"
                    )
        self.agreed = True

    def machines(self) -> dict[int, list[int]]:
        """The ranks of each machine's processes."""
        found: dict[int, list[int]] = {}
        for rank in range(self.place.world):
            found.setdefault(int(self._sign(self.store, rank)["machine"]), []).append(rank)
        return found

    def agree_to_stop(self, wanted: bool, step: int) -> bool:
        """Whether all stop after ``step``, of steps that no process can begin before all others
        have ended the one before the last.

        Args:
            wanted: this process has been asked to stop.
            step: that it has just ended.
        """
        if wanted:
            # the others see it before they end the next step
            self.store.compare_set("stop", "", str(step + 1))
        return self.store.check(["stop"]) and step >= int(self.store.get("stop"))

    def fail(self, end: End) -> End:
        """Record why the run ends, unless that is recorded already; returns what is."""
        text = json.dumps(asdict(end))
        return End(**json.loads(self.store.compare_set("end", "", text)))

    def find_culprit(self) -> End | None:
        """Whose end has broken a connection; None where nobody's has."""
        until = time.monotonic() + _SILENCE + 2 * _POLL
        while time.monotonic() < until:
            found = self._look(self.store)
            if found is not None:
                return found
            time.sleep(0.1)
        return None

    def leave(self) -> None:
        """End without having done the work; a keeper of the store lets the others read why."""
        if self.place.rank == 0 and self.place.started_by == "srun":
            until = time.monotonic() + _KEEPING
            others = [f"left/{rank}" for rank in range(1, self.place.world)]
            with suppress(RuntimeError, dist.DistError):
                while time.monotonic() < until and not self.store.check(others):
                    time.sleep(0.1)
        self._part("left")

    def finish(self) -> None:
        """Say that this process has done its work; wait for the others, who may need the store."""
        with suppress(RuntimeError, dist.DistError):  # the store's keeper has seen all and gone
            self.store.set(f"done/{self.place.rank}", "1")
            for rank in range(self.place.world):
                self._wait_for(f"done/{rank}", rank)
        self._part("done")

    def _part(self, how: str) -> None:
        with suppress(RuntimeError, dist.DistError):
            self.store.set(f"{how}/{self.place.rank}", "1")
        self._over.set()
        self._watcher.join(timeout=5)  # it must not run on while Python ends

    def _wait_for(self, key: str, rank: int) -> None:
        came_until = time.monotonic() + ARRIVAL
        while not self.store.check([key]):
            if self.store.check(["end"]):
                end = _read_end(self.store)
                raise SystemExit(end.code)  # it has said why
            if time.monotonic() > came_until and not self.store.check([f"life/{rank}"]):
                raise UserError(
                    f"process {rank} of {self.place.world} has not come in {ARRIVAL:.0f} s; look "
                    "for its own message"
                )
            time.sleep(0.05)

    def _show_life(self, store: dist.Store, count: int) -> None:
        sign = {
            "host": socket.gethostname(), "running": _running_system(), "pid": os.getpid(),
            "machine": self.place.machine,
        }  # fmt: skip
        store.set(f"life/{self.place.rank}", json.dumps({**sign, "count": count}))

    def _sign(self, store: dist.Store, rank: int) -> dict[str, str | int]:
        sign: dict[str, str | int] = json.loads(store.get(f"life/{rank}"))
        return sign

    def _watch(self) -> None:
        store = self.store.clone()
        count = 0
        while not self._over.wait(_POLL):
            count += 1
            try:
                self._show_life(store, count)
                end = self._look(store)
            except (RuntimeError, dist.DistError):
                end = self._without_store()
            if end is not None and not self._over.is_set():
                self._end_process(end)

    def _look(self, store: dist.Store) -> End | None:
        """Why the run ends, if it does; a process that is found gone is said."""
        if store.check(["end"]):
            return _read_end(store)
        for rank in range(self.place.world):
            if rank == self.place.rank or not store.check([f"life/{rank}"]):
                continue
            parted = store.check([f"done/{rank}"]) or store.check([f"left/{rank}"])
            if not parted and self._is_gone(store, rank):
                return self._say_gone(store, rank)
        return None

    def _is_gone(self, store: dist.Store, rank: int) -> bool:
        text, now = store.get(f"life/{rank}").decode(), time.monotonic()
        seen, since = self._signs.get(rank, ("", now))
        if text != seen:
            self._signs[rank] = text, now
            since = now
        sign = json.loads(text)
        if sign["running"] == _running_system():  # however long a call keeps it from signing
            return not _is_running(int(sign["pid"]))
        return now - since > _SILENCE

    def _say_gone(self, store: dist.Store, rank: int) -> End | None:
        if store.check(["end"]):  # it has said why itself
            return _read_end(store)
        sign = self._sign(store, rank)
        line = gone_line(rank, self.place.world, f"process id {sign['pid']} on {sign['host']}")
        text = json.dumps(asdict(End(self.place.rank, 1, line)))
        end = End(**json.loads(store.compare_set("end", "", text)))
        if end.rank == self.place.rank and end.line == line:
            say_error(line)
        return end

    def _without_store(self) -> End | None:
        """The store's keeper is gone: the others may be done, else it was killed."""
        if self._over.wait(5):
            return None
        place = self.place
        keeper_is_first = place.started_by == "srun"
        line = f"the process that keeps the meeting at {place.host}:{place.port} was killed"
        if place.rank == 1 if keeper_is_first else place.local_rank == 0:
            say_error(f"{line}; the others end too")
        return End(-1, 1, line)

    def _end_process(self, end: End) -> None:
        """End this process: by itself if it can, else at once."""
        saving = end.code == 128 + signal.SIGTERM
        if saving:
            os.kill(os.getpid(), signal.SIGTERM)
        if not self._over.wait(_GRACE_SAVING if saving else _GRACE):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)


def gone_line(rank: int, world: int, how: str) -> str:
    """What is said of a process that vanished."""
    return (
        f"process {rank} of {world} was killed or has crashed ({how}); the others end too. Start "
        "the command again to go on, a training with --resume"
    )


def _read_end(store: dist.Store) -> End:
    return End(**json.loads(store.get("end")))


@functools.cache
def _running_system() -> list[str]:
    """Where a process id means the same; two machines may have one name."""
    parts = [machine_name()]
    with suppress(OSError):  # no Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    return parts


def _is_running(process: int) -> bool:
    """Whether a process of this machine runs; one that has ended may wait to be noticed."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return True
