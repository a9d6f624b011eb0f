"""Coming to the meeting of a run's processes, and leaving it: one says why a run ends."""

from __future__ import annotations

import re
import secrets
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from ovseg.engine import stopping
from ovseg.engine.meeting import ARRIVAL, End, Meeting
from ovseg.engine.place import Place
from ovseg.errors import UserError, say_error, say_interrupted, user_line

#: how errors read that come of another process's end
_OF_CONNECTION = re.compile(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|Broken pipe|TCPStore")
_PAUSE = 0.05  # seconds


def connect(place: Place) -> dist.Store:
    """The store that the processes of torchrun or srun meet in.

    Raises:
        UserError: it cannot be reached, or its port is taken.
    """
    if place.started_by != "torchrun":
        return dist.PrefixStore("ovseg", open_store(place.host, place.port, place.rank == 0))
    wait = timedelta(seconds=ARRIVAL)
    try:
        store, _, _ = next(dist.rendezvous("env://", place.rank, place.world, timeout=wait))
    except (RuntimeError, ValueError, dist.DistError) as error:
        raise _unreachable(place.host, place.port, place.rank == 0, error) from error
    return dist.PrefixStore(_own_prefix(store, place), store)


def _own_prefix(store: dist.Store, place: Place) -> str:
    """What the keys of this start begin with.

    torchrun keeps its store when it starts the processes again, with all that those before have
    written; and how often it has, machines count differently. So process 0 makes a prefix up, and
    gives it to each of the others in answer to a word that no earlier process has said.
    """
    others = range(1, place.world)
    until = time.monotonic() + ARRIVAL
    if place.rank > 0:
        word, prefix = secrets.token_hex(8), ""
        store.set(f"ovseg/ask/{place.rank}", word)
        while not prefix and time.monotonic() < until:
            asked, _, prefix = _read(store, f"ovseg/answer/{place.rank}").partition(" ")
            prefix = prefix if asked == word else ""
            time.sleep(0.0 if prefix else _PAUSE)
        if not prefix:
            raise UserError(
                f"process 0 of {place.world} has not come in {ARRIVAL:.0f} s; look for its own "
                "message"
            )
        store.set(f"{prefix}/came/{place.rank}", "1")
        return prefix
    prefix, answered = f"ovseg/{secrets.token_hex(8)}", dict.fromkeys(others, "")
    came = [f"{prefix}/came/{rank}" for rank in others]
    while not store.check(came) and time.monotonic() < until:
        for rank in others:
            word = _read(store, f"ovseg/ask/{rank}")
            if word != answered[rank]:
                answered[rank] = word
                store.set(f"ovseg/answer/{rank}", f"{word} {prefix}")
        time.sleep(_PAUSE)
    return prefix  # who has not come is said where they agree


def _read(store: dist.Store, key: str) -> str:
    """The text of a key; empty where it is not there yet."""
    return store.get(key).decode() if store.check([key]) else ""


def open_store(host: str, port: int, keep: bool) -> dist.TCPStore:
    """A store at ``host:port``, kept by this process or reached from it; port 0: any free one.

    Raises:
        UserError: it cannot be reached, or its port is taken.
    """
    try:
        return dist.TCPStore(
            host, port, is_master=keep, wait_for_workers=False,
            timeout=timedelta(seconds=ARRIVAL),
        )  # fmt: skip
    except (RuntimeError, ValueError, dist.DistError) as error:
        raise _unreachable(host, port, keep, error) from error


def _unreachable(host: str, port: int, keep: bool, error: Exception) -> UserError:
    reason = str(error).splitlines()[0][:200]
    if keep:
        return UserError(
            f"processes cannot meet at {host}:{port} ({reason}); give a port that is free"
        )
    return UserError(
        f"the first process does not answer at {host}:{port} ({reason}); start it too, and check "
        "the address"
    )


_current: Meeting | None = None


def current_meeting() -> Meeting | None:
    """The meeting that this process is in, if any."""
    return _current


@contextmanager
def joined(place: Place, store: dist.Store | None = None) -> Iterator[Meeting]:
    """Be at the meeting of a run; of errors, one process says one line.

    Args:
        place: of this process.
        store: where it meets the others; None: as :func:`connect` finds it.

    Raises:
        SystemExit: another process has ended the run and said why.
    """
    global _current
    if place.started_by == "launch":  # the command that has started them says it
        handled = stopping.handled(says=(), ctrl_c=False)
    else:
        # torchrun and srun say what becomes of SIGTERM, which they also send when a process fails
        handled = stopping.handled(says={signal.SIGINT} if place.rank == 0 else ())
    with handled:
        meeting = Meeting(place, connect(place) if store is None else store)
        _current = meeting
        try:
            yield meeting
        except BaseException as error:
            stopping.end_undisturbed()
            own = _end_of(error, place)
            if own.code:
                raise SystemExit(_end_run(meeting, own, error)) from error
            meeting.finish()
            raise
        else:
            meeting.finish()
        finally:
            _current = None


def _end_run(meeting: Meeting, own: End, error: BaseException) -> int:
    """Say why a run ends, if no other process has; returns the exit code."""
    culprit = meeting.find_culprit() if _is_of_connection(error) else None
    end = culprit or _recorded(meeting, own)
    if end == own:
        place, line = meeting.place, user_line(error)
        name = f"process {place.rank} of {place.world}: " if meeting.agreed else ""
        if line is not None:
            say_error(f"{name}{line}")
        elif isinstance(error, KeyboardInterrupt):
            say_interrupted()
        elif isinstance(error, Exception):
            traceback.print_exception(error)
            say_error(f"{name}{own.line}; the others end too")
    meeting.leave()
    return end.code


def _recorded(meeting: Meeting, end: End) -> End:
    try:
        return meeting.fail(end)
    except (RuntimeError, dist.DistError):  # nobody is there any more
        return end


def _is_of_connection(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and bool(_OF_CONNECTION.search(str(error)))


def _end_of(error: BaseException, place: Place) -> End:
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        return End(place.rank, code)
    if isinstance(error, KeyboardInterrupt):
        return End(place.rank, 130)
    name = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    first = (str(error).splitlines() or [""])[0]
    return End(place.rank, 2 if isinstance(error, UserError | OSError) else 1, f"{name}{first}")


def stop_agreed(step: int) -> bool:
    """Whether all processes of a run, each of which has just ended ``step``, end now.

    Between two steps they have been asked to; see :meth:`Meeting.agree_to_stop`.
    """
    wanted = stopping.stop_wanted()
    return wanted if _current is None else _current.agree_to_stop(wanted, step)
