"""Masks at the size of the image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.modeling.proposals import masks


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_masks_are_enlarged_in_parts(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    logits = torch.randn(7, 12, 16, generator=torch.Generator().manual_seed(0)) * 5
    monkeypatch.setattr(masks, "_PIXELS", at_once * 48 * 64)
    found = masks.image_masks(logits.half(), (45, 61), (48, 64))
    whole = F.interpolate(logits.half().float()[None], size=(48, 64), mode="bilinear")[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, whole[:, :45, :61].sigmoid())
    assert masks.image_masks(logits[:0], (45, 61), (48, 64)).shape == (0, 45, 61)
