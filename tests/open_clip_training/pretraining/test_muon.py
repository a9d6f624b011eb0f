"""Muon against torch's own."""

from __future__ import annotations

import pytest
import torch

from open_clip_training.pretraining.muon import Muon, orthogonalise


def test_muon_orthogonalises():
    torch.manual_seed(0)
    for shape in ((6, 20), (20, 6)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert 0.5 < values.min() <= values.max() < 1.3
    with pytest.raises(ValueError, match="matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon yet")
def test_muon_steps_as_torchs_does():
    torch.manual_seed(0)
    start, gradients = torch.randn(12, 8), [torch.randn(12, 8) for _ in range(3)]
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    common = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9}
    optimizers = [
        (ours, Muon([ours], **common)),
        (theirs, torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **common)),
    ]
    for gradient in gradients:
        for parameter, optimizer in optimizers:
            parameter.grad = gradient.clone()
            optimizer.step()
    # torch's iteration runs in bfloat16
    moved = (ours - start).norm()
    assert moved > 0.3
    assert (ours - theirs).norm() < 0.03 * moved
