"""Signals in the processes that load images for another."""

from __future__ import annotations

import signal

_SECONDS = 120  # that it outlives SIGTERM at most


def outlive_signals(_: int) -> None:
    """Leave Ctrl-C and SIGTERM, which come to all processes of a command, to the one that is loaded
    for: it ends its step first, and ends this process with it.

    The ``worker_init_fn`` of a ``DataLoader``, since torch's own handler ends at once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_SECONDS))
