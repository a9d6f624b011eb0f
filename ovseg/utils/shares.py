"""Sharing work among processes."""

from __future__ import annotations


def own_share(count: int, batch_size: int, rank: int, world: int) -> range:
    """The places, of ``count``, that one of several processes works on: whole batches, in order.

    So the batches, and with them what padding does to their images, are those of one process. Where
    there are fewer batches than processes, some have none.

    Args:
        count: of images.
        batch_size: images that are worked on together.
        rank, world: the process, and how many there are.
    """
    batches = -(-count // batch_size)
    each, more = divmod(batches, world)
    first = rank * each + min(rank, more)
    after = first + each + (rank < more)
    return range(first * batch_size, min(after * batch_size, count))
