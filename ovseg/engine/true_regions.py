"""Ground-truth regions as masks, for CLIP to classify in place of proposals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ovseg.modeling.crops import mask_boxes


def region_masks(labels: np.ndarray, chosen: Sequence[int] | np.ndarray) -> Tensor:
    """The masks of regions.

    Args:
        labels: integer ``(H, W)``, the region of every pixel.
        chosen: which regions, N of them.

    Returns:
        bool ``(N, H, W)``, on the CPU.
    """
    return torch.from_numpy(labels == np.asarray(chosen, np.int64)[:, None, None])


def filled_boxes(masks: Tensor) -> Tensor:
    """Masks, bool ``(N, H, W)``, grown to fill their boxes; of the same shape."""
    filled = torch.zeros_like(masks)
    for mask, (left, top, right, bottom) in zip(filled, mask_boxes(masks).tolist(), strict=True):
        mask[top:bottom, left:right] = True
    return filled
