"""Matching of queries and ground truth, in mixed precision too."""

from __future__ import annotations

import pytest
import torch

from ovseg.modeling.losses import dice_loss, focal_loss, pairwise_dice_loss, pairwise_focal_loss
from ovseg.modeling.matcher import HungarianMatcher


def test_every_pair_has_the_loss_of_the_pair_alone() -> None:
    torch.manual_seed(0)
    logits, targets = 3 * torch.randn(4, 50), (torch.rand(3, 50) > 0.5).float()
    for of_all, of_one in ((pairwise_focal_loss, focal_loss), (pairwise_dice_loss, dice_loss)):
        found = of_all(logits, targets)
        for q in range(4):
            for t in range(3):
                expected = of_one(logits[q : q + 1], targets[t : t + 1])[0]
                torch.testing.assert_close(found[q, t], expected)


@pytest.mark.parametrize(("dice", "chosen"), [(0.0, 0), (50.0, 1)])
def test_dice_decides_where_it_weighs_more(dice: float, chosen: int) -> None:
    """Of a mask that misses an object and one that finds it and half as many pixels more."""
    target = torch.zeros(1, 8, 8, dtype=torch.bool)
    target[0, :2] = True
    masks = torch.full((1, 2, 8, 8), -6.0)
    masks[0, 1, :3] = 6
    matcher = HungarianMatcher(cost_class=0.0, cost_mask=20.0, cost_dice=dice)
    truth = [{"labels": torch.zeros(1, dtype=torch.int64), "masks": target}]
    ((queries, _),) = matcher(torch.zeros(1, 2, 2), masks, truth)
    assert queries.tolist() == [chosen]


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_a_large_wrong_mask_is_not_taken_for_a_perfect_one(dtype: torch.dtype | None) -> None:
    """The focal cost of 25 600 pixels, summed up, is more than fp16 holds."""
    side = 160
    target = torch.zeros(1, side, side, dtype=torch.bool)
    target[:, :, : side // 4] = True
    masks = torch.full((1, 2, side, side), -10.0)
    masks[0, 0][target[0]] = 10
    masks[0, 1, :, side // 2 :] = 10
    matcher = HungarianMatcher(cost_class=1.0, cost_mask=20.0, cost_dice=1.0)
    logits = torch.zeros(1, 2, 2)
    truth = [{"labels": torch.zeros(1, dtype=torch.int64), "masks": target}]
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        ((queries, _),) = matcher(logits, masks if dtype is None else masks.to(dtype), truth)
    assert queries.tolist() == [0]
