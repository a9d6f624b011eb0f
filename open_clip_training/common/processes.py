"""The processes that share a run, one of them included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from open_clip_train.distributed import init_distributed_device_so
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


@contextmanager
def training_processes(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun has started, if it has, to train together.

    Args:
        device: "cpu" (gloo) or "cuda" (NCCL, a GPU for each process).
    """
    place = init_distributed_device_so(device=device)
    try:
        yield Processes(torch.device(place["device"]), place["global_rank"], place["world_size"])
    finally:
        if place["distributed"]:
            dist.destroy_process_group()


@contextmanager
def working_processes() -> Iterator[Processes]:
    """Join the processes that torchrun has started, if it has, to share independent work.

    They wait for each other, some much longer than the default allows, and exchange nothing else.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    processes = Processes(torch.device("cpu"), rank, world)
    if not dist.is_torchelastic_launched():
        yield processes
        return
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    yield processes
    dist.destroy_process_group()  # not after an error: its message must come first
