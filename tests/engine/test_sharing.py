"""Batch normalisation over several processes against torch's own over the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import spawn

from ovseg.engine.sharing import WholeBatchNorm

SHARES = (3, 1)  # images of each of two processes


def layer(kind: type[nn.BatchNorm2d], affine: bool) -> nn.BatchNorm2d:
    norm = kind(4, affine=affine)
    if affine:
        norm.weight.data = torch.tensor([1.0, -0.5, 2.0, 0.1])
        norm.bias.data = torch.tensor([0.0, 1.0, -1.0, 3.0])
    return norm


def batch() -> tuple[Tensor, Tensor]:
    """Images, far from a mean of zero, and what each value of the output counts."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(sum(SHARES), 4, 5, 6, generator=generator) * 3 + 10
    return images, torch.randn(images.shape, generator=generator)


def normalise(norm: nn.BatchNorm2d, images: Tensor, counts: Tensor) -> dict[str, Tensor | None]:
    images = images.clone().requires_grad_()
    output = norm(images)
    (output.square() * counts).sum().backward()
    found = {"output": output.detach(), "images": images.grad}
    if norm.affine:
        found |= {"weight": norm.weight.grad, "bias": norm.bias.grad}
    return {**found, "mean": norm.running_mean, "variance": norm.running_var}


def share(rank: int, affine: bool, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meeting", world_size=2, rank=rank)
    images, counts = (values.split(SHARES)[rank] for values in batch())
    torch.save(normalise(layer(WholeBatchNorm, affine), images, counts), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_batch_norm_of_two_processes_is_that_of_the_whole_batch(
    affine: bool, tmp_path: Path
) -> None:
    spawn(share, (affine, tmp_path), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    whole = normalise(layer(nn.BatchNorm2d, affine), *batch())
    joined = {
        name: torch.cat([part[name] for part in parts]) if name in ("output", "images")
        # parameters' gradients are added up over processes, statistics are the same in all
        else parts[0][name] + parts[1][name] if name in ("weight", "bias")
        else parts[1][name]
        for name in whole
    }  # fmt: skip
    for name, expected in whole.items():
        torch.testing.assert_close(joined[name], expected, rtol=1e-5, atol=1e-5, msg=name)
