"""Masks of ground-truth regions, by hand."""

from __future__ import annotations

import numpy as np
import torch

from ovseg.engine.true_regions import filled_boxes, region_masks


def test_a_mask_for_each_region_in_the_order_asked_for() -> None:
    labels = np.array([[7, 0, 255], [7, 7, 0]], np.uint8)
    masks = region_masks(labels, [255, 7])
    assert masks.tolist() == [
        [[False, False, True], [False, False, False]],
        [[True, False, False], [True, True, False]],
    ]
    assert region_masks(labels, []).shape == (0, 2, 3)


def test_masks_fill_their_boxes() -> None:
    masks = torch.zeros(2, 4, 5, dtype=torch.bool)
    masks[0, 1, 1] = masks[0, 2, 3] = True
    filled = torch.zeros(2, 4, 5, dtype=torch.bool)
    filled[0, 1:3, 1:4] = True
    assert torch.equal(filled_boxes(masks), filled)
