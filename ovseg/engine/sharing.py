"""A model that several processes train together, on the whole batch as one would."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F
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
        mean, variance, total = _statistics(input.detach())
        self._remember(mean, variance * total / (total - 1))
        output: Tensor = _Normalised.apply(
            input, self.weight, self.bias, mean, variance, total, self.eps
        )
        return output

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


def _statistics(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over all processes, ``(C,)``, and how many values it has.

    Each process tells its own mean and variance, in one exchange.
    """
    variance, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)
    own = torch.stack([mean, variance, torch.full_like(mean, values.numel() / len(mean))])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    means, variances, counts = torch.stack(parts, dim=1)
    total = counts.sum(dim=0)
    mean = (means * counts).sum(dim=0) / total
    variance = ((variances + (means - mean).square()) * counts).sum(dim=0) / total
    return mean, variance, total


class _Normalised(torch.autograd.Function):
    """By mean and variance of all processes, through which gradients flow to all of them."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        total: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(values, weight, mean, variance, total)
        ctx.eps = eps
        return F.batch_norm(values, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, variance, total = ctx.saved_tensors
        # the sums over this process: of gradient * normalised value, and of the gradient
        _, by_value, plain = torch.ops.aten.native_batch_norm_backward(
            gradient, values, torch.ones_like(mean), mean, variance, None, None, False, ctx.eps,
            [False, True, True],
        )  # fmt: skip
        sums = torch.stack([by_value, plain])
        dist.all_reduce(sums)
        rstd = torch.rsqrt(variance + ctx.eps)
        scale = rstd if weight is None else rstd * weight
        slope = -scale * rstd * sums[0] / total
        offset = -scale * sums[1] / total - slope * mean
        of_values = gradient * scale[:, None, None]
        of_values.addcmul_(values, slope[:, None, None]).add_(offset[:, None, None])
        of_weight = by_value if ctx.needs_input_grad[1] else None
        return of_values, of_weight, plain if ctx.needs_input_grad[2] else None, *[None] * 4
