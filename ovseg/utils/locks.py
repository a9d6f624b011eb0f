"""One process at a time: for a file that is fetched, or a folder that a training writes to."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ovseg.errors import UserError

logger = logging.getLogger(__name__)


@contextmanager
def only_process(
    path: str | os.PathLike[str],
    otherwise: Callable[[], str],
    wait: float | None = None,
) -> Iterator[None]:
    """Let other processes that enter with the same path wait, or be refused, while the block runs.

    The operating system ends a lock with the process that holds it, however that ends. The same
    process may enter again. On a file system without locks nobody is kept out.

    Args:
        path: a file whose name begins with a dot; it is made, with its folder.
        otherwise: what to say when another process is inside.
        wait: so many seconds, and then refuse; None: as long as it takes, after saying so.

    Raises:
        Occupied: another process is inside, and ``wait`` is over.
        OSError: the file cannot be made.
    """
    from filelock import FileLock, Timeout

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.resolve(), is_singleton=True)
    try:
        try:
            lock.acquire(timeout=1 if wait is None else wait)
        except Timeout as error:
            if wait is not None:
                raise Occupied(otherwise()) from error
            logger.info("%s", otherwise())
            lock.acquire()
    except NotImplementedError:  # filelock's word for a file system that has none
        logger.warning("%s: no locks on this file system", target.parent)
    try:
        yield
    finally:
        lock.release()


class Occupied(UserError):
    """Another process does it."""
