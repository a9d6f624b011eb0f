"""The processes that share a run, one of them included."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ovseg.errors import UserError


def wait_for_all() -> None:
    """Return when all processes that share a run have come here.

    Raises:
        UserError: one of them has failed.
    """
    if not dist.is_initialized():
        return
    try:
        dist.barrier()
    except RuntimeError as error:
        raise UserError("another process has failed; its own message says why") from error


@dataclass
class Processes:
    """This process among those that share a run."""

    device: torch.device
    rank: int = 0
    world: int = 1

    def gather(self, values: Tensor) -> Tensor:
        """Rows ``(B, ...)`` of all processes in their order, ``(world * B, ...)``."""
        if self.world == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.world)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def copy_first(self, values: Tensor) -> Tensor:
        """The values of the process of rank 0, in place."""
        if self.world > 1:
            dist.broadcast(values, src=0)
        return values

    def own_part(self, values: Tensor) -> Tensor:
        """This process's rows of those of all."""
        return values.chunk(self.world)[self.rank]
