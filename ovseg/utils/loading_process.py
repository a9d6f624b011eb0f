"""Signals in the processes that load images for another."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable

_SECONDS = 120  # that it outlives SIGTERM at most


def loading_init() -> Callable[[int], None] | None:
    """The ``worker_init_fn`` of a ``DataLoader``: :func:`outlive_signals`, if this process handles
    SIGTERM and so ends its loading processes itself."""
    return outlive_signals if callable(signal.getsignal(signal.SIGTERM)) else None


def outlive_signals(_: int = 0) -> None:
    """Leave Ctrl-C and SIGTERM, which come to all processes of a command, to the one that is loaded
    for: it ends its step first, then this process. torch's own handler ends at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_SECONDS))


def end_loading_processes() -> None:
    """End those that this process has started, which do not heed SIGTERM."""
    loading = [process for process in multiprocessing.active_children() if process.daemon]
    if not loading:
        return
    # torch raises where it is told of a loading process that was killed
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in loading:
        process.kill()
    for process in loading:
        process.join()
    signal.signal(signal.SIGCHLD, before)
