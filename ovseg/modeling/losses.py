"""Focal and dice loss of masks, element by element; matching and training sum them differently.

Focal loss: "Focal Loss for Dense Object Detection" (ICCV 2017) with alpha 0.25 and gamma 2.
Dice loss: "V-Net" (3DV 2016), smoothed by one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA = 0.25
GAMMA = 2


def focal_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The focal loss of every element if its target were 1, and if it were 0; same shape."""
    prob = logits.sigmoid()
    positive = ALPHA * (1 - prob) ** GAMMA * F.softplus(-logits)
    negative = (1 - ALPHA) * prob**GAMMA * F.softplus(logits)
    return positive, negative


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean focal loss of each mask.

    Args:
        logits: float (N, P).
        targets: 0 or 1, float (N, P).

    Returns:
        float (N,).
    """
    positive, negative = focal_terms(logits)
    return (positive * targets + negative * (1 - targets)).mean(dim=1)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice loss of each mask; arguments and result as in :func:`focal_loss`."""
    prob = logits.sigmoid()
    overlap = 2 * (prob * targets).sum(dim=1)
    return 1 - (overlap + 1) / (prob.sum(dim=1) + targets.sum(dim=1) + 1)


def _in_float32(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Mixed precision would multiply in fp16, whose largest number sums over pixels exceed."""

    @functools.wraps(loss)
    def in_float32(logits: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            return loss(logits.float(), targets.float())

    return in_float32


@_in_float32
def pairwise_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Focal loss of every query against every target: (Q, P) and (T, P) give (Q, T)."""
    positive, negative = focal_terms(logits)
    return (positive @ targets.T + negative @ (1 - targets).T) / logits.shape[1]


@_in_float32
def pairwise_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice loss of every query against every target: (Q, P) and (T, P) give (Q, T)."""
    prob = logits.sigmoid()
    overlap = 2 * prob @ targets.T
    total = prob.sum(dim=1)[:, None] + targets.sum(dim=1)[None]
    return 1 - (overlap + 1) / (total + 1)
