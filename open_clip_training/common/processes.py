"""The processes that share a run, one of them included."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor


@dataclass
class Processes:
    """This process among those that share a run."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @classmethod
    def present(cls, device: str) -> Processes:
        """Those that :func:`ovseg.engine.processes.start` has started."""
        rank, world = comm.get_rank(), comm.get_world_size()
        if world > 1 and torch.device(device).type == "cuda":
            return cls(torch.device("cuda", torch.cuda.current_device()), rank, world)
        return cls(torch.device(device), rank, world)

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
