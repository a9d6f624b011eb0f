"""Which query answers for which ground-truth mask (DETR, ECCV 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .losses import pairwise_dice_loss, pairwise_focal_loss

_SPOILT = -1e30


class HungarianMatcher(nn.Module):
    """The one-to-one assignment of least class, focal and dice cost."""

    def __init__(self, cost_class: float, cost_mask: float, cost_dice: float) -> None:
        super().__init__()
        self.cost_class = cost_class
        self.cost_mask = cost_mask
        self.cost_dice = cost_dice

    @torch.no_grad()
    def forward(
        self, logits: Tensor | None, masks: Tensor, targets: list[dict[str, Tensor]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Match each image of a batch.

        Args:
            logits: class logits (B, Q, C + 1); None: classes cost nothing.
            masks: mask logits (B, Q, h, w).
            targets: for each image ``labels`` int64 (T,) and ``masks`` bool (T, H, W), padded to
                one size over the batch.

        Returns:
            For each image the matched queries and, in the same order, their targets, int64.
        """
        from scipy.optimize import linear_sum_assignment  # takes half a second; training alone

        matches = []
        for image, (image_masks, target) in enumerate(zip(masks, targets, strict=True)):
            wanted = target["masks"].float()
            # the cost is taken at the resolution of the prediction
            wanted = F.interpolate(wanted[:, None], size=image_masks.shape[-2:], mode="nearest")
            wanted = wanted.flatten(1)
            flat = image_masks.flatten(1)
            cost = torch.zeros((), device=masks.device)
            if logits is not None:
                probs = logits[image].float().softmax(dim=-1)
                cost = -self.cost_class * probs[:, target["labels"]]
            cost = cost + self.cost_mask * pairwise_focal_loss(flat, wanted)
            cost = cost + self.cost_dice * pairwise_dice_loss(flat, wanted)
            # what is not finite is matched before all else: it then shows in the losses, whose
            # names the trainer tells
            cost = cost.cpu().nan_to_num(_SPOILT, _SPOILT, _SPOILT)
            rows, columns = linear_sum_assignment(cost)
            matches.append((torch.as_tensor(rows), torch.as_tensor(columns)))
        return matches
