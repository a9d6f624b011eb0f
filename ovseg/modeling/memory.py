"""Work in parts that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def in_parts(work: Callable[[slice], Tensor], count: int, at_once: int) -> tuple[Tensor, int]:
    """Do ``count`` pieces of work, so many at once; half as many whenever memory runs out.

    Args:
        work: gives the results (N, ...) of a slice of the pieces.
        count: at least 1.
        at_once: how many to try first, at least 1.

    Returns:
        The results (count, ...), and how many pieces fitted at once in the end.

    Raises:
        torch.OutOfMemoryError: one piece alone does not fit.
    """
    done: list[Tensor] = []
    start = 0
    while start < count:
        try:
            done.append(work(slice(start, min(start + at_once, count))))
        except torch.OutOfMemoryError:
            tried = min(at_once, count - start)
            if tried == 1:
                raise
            at_once = (tried + 1) // 2
            logger.warning("out of memory with %d crops at once: going on with %d", tried, at_once)
        else:
            start += at_once
            continue
        # outside of the except clause, whose error keeps the failed tensors alive
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return torch.cat(done), at_once


def rows_at(values: Tensor, places: Tensor) -> Tensor:
    """``values[places]``, without a copy where that would be all of them: masks are large.

    Args:
        values: (N, ...).
        places: int64 (K,).
    """
    everything = torch.arange(len(values), device=places.device)
    return values if torch.equal(places, everything) else values[places]
