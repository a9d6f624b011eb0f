"""SIGTERM and Ctrl-C: work that can be saved is saved first; a second Ctrl-C ends at once.

A run that goes step by step asks :func:`stop_wanted` after each, saves, and raises what
:func:`stopped` gives. Elsewhere the signal raises at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ovseg.utils.loading_process import end_loading_processes, outlive_signals

_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})


class Terminated(SystemExit):
    """The process was asked to end by SIGTERM; exit code 143."""

    def __init__(self) -> None:
        """128 + the number of the signal, as shells count."""
        super().__init__(128 + signal.SIGTERM)


class _State:
    owner = -1
    number: int | None = None
    #: what the user is told when a step is ended first; None: nothing is, the signal raises
    patience: str | None = None
    says: Collection[int] = _SIGNALS
    ending = False


_state = _State()


@contextmanager
def handled(says: Collection[int] = _SIGNALS, ctrl_c: bool = True) -> Iterator[None]:
    """Handle SIGTERM and Ctrl-C as this module says, in the main thread of a process.

    Args:
        says: signals of which this process tells the user; of others another process does.
        ctrl_c: False: another process looks after Ctrl-C, which comes to all that a terminal has
            started; it is ignored here.
    """
    if threading.current_thread() is not threading.main_thread() or _state.owner == os.getpid():
        yield
        return
    _state.owner, _state.number, _state.says, _state.ending = os.getpid(), None, says, False
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, _on_signal),
        signal.SIGINT: signal.signal(signal.SIGINT, _on_signal if ctrl_c else signal.SIG_IGN),
    }
    try:
        yield
    finally:
        end_loading_processes()
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.number, _state.owner = None, -1


def end_undisturbed() -> None:
    """From now on this process ends, and only a second Ctrl-C disturbs it."""
    _state.ending = True


@contextmanager
def step_by_step(what: str) -> Iterator[None]:
    """A block that asks :func:`stop_wanted` after each step; ``what`` is done before the end."""
    before, _state.patience = _state.patience, what
    try:
        yield
    finally:
        _state.patience = before


@contextmanager
def at_once() -> Iterator[None]:
    """A long step inside of :func:`step_by_step` that may be left anywhere."""
    if _state.number is not None:
        raise stopped()  # before the block: what was asked then has been told
    before, _state.patience = _state.patience, None
    try:
        yield
    finally:
        _state.patience = before


def stop_wanted() -> bool:
    """Whether the process has been asked to end."""
    return _state.number is not None


def stopped() -> BaseException:
    """What to raise where the process has been asked to end, and all is saved."""
    if _state.number != signal.SIGINT:
        return Terminated()
    return KeyboardInterrupt() if _state.patience is None else SystemExit(130)  # that was told


def _on_signal(number: int, _: FrameType | None) -> Any:
    if os.getpid() != _state.owner:  # a loading process that starts, a copy of this one
        outlive_signals()
        return
    if _state.number is not None:
        if number == signal.SIGINT:
            os._exit(130)
        return
    _state.number = number
    if _state.ending:
        return
    if _state.patience is None:
        if number == signal.SIGTERM:
            _say(number, "terminated")
        raise stopped()
    name = "interrupted" if number == signal.SIGINT else "terminated"
    again = "; Ctrl-C again ends at once" if number == signal.SIGINT else ""
    _say(number, f"{name}: {_state.patience}{again}")


def _say(number: int, line: str) -> None:
    """Write a line to stderr, even where a signal has interrupted another writing."""
    if number in _state.says:
        os.write(2, f"{line}\n".encode())
