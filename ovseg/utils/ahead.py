"""Work that threads do before its results are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS = 2


def run_ahead(
    items: Iterable[Item], work: Callable[[Item], Result], ahead: int
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Do ``work`` on each item in threads, at most ``ahead`` of them before they are asked for.

    Yields:
        Each item with its finished or running work, in the order of the items. What the work raises
        is raised by :meth:`~concurrent.futures.Future.result`.
    """
    source = iter(items)
    with ThreadPoolExecutor(_THREADS) as threads:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        try:
            while True:
                for item in islice(source, ahead - len(waiting)):
                    waiting.append((item, threads.submit(work, item)))
                if not waiting:
                    return
                yield waiting.popleft()
        finally:
            for _, running in waiting:
                running.cancel()
