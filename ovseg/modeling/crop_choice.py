"""Which proposals CLIP has to look at: those that can show in the segmentation (not in the paper).

A pixel's score is a sum over proposals, and mostly one of them makes up nearly all of it: the one
with the largest ``mask * strength``, where the strength is what is known of a proposal before CLIP
has seen it, MaskFormer's probability that it is anything to the power that it has in the ensemble.
Proposals that are largest nowhere can be left out; CLIP then has about half as much to do.

``docs/speed.md`` has the accuracy and the saving, and other ways that were tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg.structures import Classified

# masks are compared at no more than about so many pixels a side
_SIDE = 256


@dataclass(frozen=True)
class CropChoice:
    """Chooses the proposals whose crops CLIP sees.

    Attributes:
        visible_only: leave out proposals that cannot show; False: CLIP sees all of them, and
            nothing else here counts.
        tolerance: 0..1; a proposal can show at a pixel where its ``mask * strength`` is at least
            this times the largest.
        min_area: 0..1; it has to be so at more than this share of the pixels.
        second_round: 0..1; when the chosen ones are classified, others that could still change more
            than this share of the pixels are chosen too; 0: there is no second round.
        borrow_iou: 0..1; a proposal that is left out has the features of the chosen one that it
            overlaps most, where their intersection over union is at least this; 1: none has.
    """

    visible_only: bool = False
    tolerance: float = 1.0
    min_area: float = 0.0
    second_round: float = 0.0
    borrow_iou: float = 1.0

    def areas(self, masks: Tensor, strength: Tensor) -> Tensor:
        """On which share of the pixels each proposal can show.

        Args:
            masks: float (Q, H, W), 0..1.
            strength: (Q,), not negative.

        Returns:
            float (Q,), 0..1.
        """
        if not len(masks):
            return torch.zeros_like(strength)
        values = thinned(masks) * strength[:, None]
        largest = values.amax(dim=0)
        return ((values >= self.tolerance * largest) & (largest > 0)).float().mean(dim=1)

    def more(
        self, masks: Tensor, potential: Tensor, classified: Classified, chosen: Tensor
    ) -> Tensor:
        """Those left out that could change the best class of enough pixels.

        A proposal is taken to change a pixel where half of the most that it could add to any class
        exceeds the lead of the best class.

        Args:
            masks: float (Q, H, W), 0..1.
            potential: (Q,); the largest probability that CLIP could leave it for any class.
            classified: the proposals so far.
            chosen: bool (Q,); those that need not be looked at again.

        Returns:
            bool (Q,), none of them chosen already.
        """
        if self.second_round <= 0 or chosen.all():
            return torch.zeros_like(chosen)
        pixels = thinned(masks)
        lead = _lead(classified.class_probs, pixels[classified.queries])
        could = ((pixels * potential[:, None] / 2) > lead).float().mean(dim=1)
        return (could > self.second_round) & ~chosen

    def lenders(self, masks: Tensor, chosen: Tensor) -> Tensor:
        """Whose features each proposal has.

        Args:
            masks: bool (Q, H, W).
            chosen: bool (Q,).

        Returns:
            int64 (Q,): its own place where it is chosen, that of the chosen one that it overlaps
            enough, or -1.
        """
        own = torch.arange(len(chosen), device=chosen.device)
        lender = own.where(chosen, -1)
        if self.borrow_iou >= 1 or chosen.all():
            return lender
        pixels = thinned(masks).float()
        areas = pixels.sum(dim=1)
        able = chosen & (areas > 0)
        if able.any():
            common = pixels[~chosen] @ pixels[able].T
            union = areas[~chosen][:, None] + areas[able] - common
            overlap, place = (common / union).max(dim=1)
            lender[~chosen] = own[able][place].where(overlap >= self.borrow_iou, -1)
        return lender


def thinned(masks: Tensor, side: int = _SIDE) -> Tensor:
    """Every so many pixels of masks (Q, H, W), as (Q, P): about ``side`` along the longer side."""
    step = max(1, max(masks.shape[-2:]) // side)
    # of a side that is shorter than a step the middle
    first_row, first_column = (min(step, length) // 2 for length in masks.shape[-2:])
    return masks[:, first_row::step, first_column::step].flatten(1)


def _lead(class_probs: Tensor, pixels: Tensor) -> Tensor:
    """By how much the best class of each pixel is ahead of the next: (P,).

    Args:
        class_probs: (K, W).
        pixels: (K, P).
    """
    leads = []
    for part in pixels.split(_tile(class_probs.shape[1]), dim=1):
        best = (class_probs.T @ part).topk(min(2, class_probs.shape[1]), dim=0).values
        leads.append(best[0] - (best[1] if len(best) > 1 else 0))
    return torch.cat(leads)


def _tile(classes: int) -> int:
    """How many pixels may have the scores of all classes at once."""
    return max(1, 2**24 // max(1, classes))
