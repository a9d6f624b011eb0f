"""A model that several processes train together, on the whole batch as one would."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def share_model(model: nn.Module) -> nn.Module:
    """The model as several processes train it; of one process itself.

    Batch normalisation is over the whole batch, as it is in one process.
    """
    if comm.get_world_size() == 1:
        return model
    device_ids = None
    if any(value.is_cuda for value in model.parameters()):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        device_ids = [torch.cuda.current_device()]
    else:
        _share_batch_norms(model)
    # buffers are the same in all processes, since batch normalisation is
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    no_buffers: dict[str, Any] = {name: False}
    return DistributedDataParallel(model, device_ids=device_ids, **no_buffers)


def _share_batch_norms(model: nn.Module) -> None:
    for module in model.modules():
        if type(module) is nn.BatchNorm2d or type(module) is nn.SyncBatchNorm:
            module.__class__ = WholeBatchNorm


class WholeBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes, on CPUs, where torch has none."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, float ``(B, C, H, W)``, this process's part of the batch."""
        if not self.training:
            return super().forward(input)
        total = torch.tensor(float(input.numel() // input.shape[1]))
        dist.all_reduce(total)
        mean = _sum(input) / total
        centred = input - mean[:, None, None]
        variance = _sum(centred.square()) / total
        self._remember(mean.detach(), variance.detach() * total / (total - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        output = centred * scale[:, None, None]
        return output if self.bias is None else output + self.bias[:, None, None]

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            assert self.num_batches_tracked is not None
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def _sum(values: Tensor) -> Tensor:
    """Each channel's sum over all processes, ``(C,)``."""
    total: Tensor = _TotalOfAll.apply(values.sum(dim=(0, 2, 3)))
    return total


class _TotalOfAll(torch.autograd.Function):
    """A sum over processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
