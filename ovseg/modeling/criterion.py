"""MaskFormer's training loss: cross entropy over queries, focal and dice over matched masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import Tensor, nn

from .losses import dice_loss, focal_loss
from .matcher import HungarianMatcher

Targets = list[dict[str, Tensor]]


def padded_targets(instances: Sequence[Instances], size: Sequence[int]) -> Targets:
    """The targets of a batch, see :class:`HungarianMatcher`.

    Args:
        instances: of each image, with ``gt_classes`` int64 (N,) and ``gt_masks`` bool (N, H, W).
        size: height and width that the masks are padded to, at the right and bottom.
    """
    targets = []
    for truth in instances:
        masks = getattr(truth.gt_masks, "tensor", truth.gt_masks)
        padding = (0, size[1] - masks.shape[-1], 0, size[0] - masks.shape[-2])
        targets.append({"labels": truth.gt_classes, "masks": F.pad(masks, padding)})
    return targets


def share_of_batch(amount: float, least: float, device: torch.device) -> float:
    """A process's share of an amount over the whole batch, which is ``least`` or more.

    The mean over processes of their losses, each divided by it, is the loss of the whole batch,
    however the images lie among the processes.

    Args:
        amount: this process's.
        least: the whole batch counts as no less.
        device: that the processes compute on.
    """
    if comm.get_world_size() == 1:
        return max(amount, least)
    total = torch.tensor([amount], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return max(total.item(), least) / comm.get_world_size()


def losses_of_layers(layers: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The losses of all decoder layers by name, the last layer first.

    Those of the others have a suffix ``_0``, ``_1`` ...
    """
    return {
        name + ("" if i == 0 else f"_{i - 1}"): loss
        for i, losses in enumerate(layers)
        for name, loss in losses.items()
    }


class MaskCriterion(nn.Module):
    """Weighted losses of matched masks."""

    def __init__(
        self, matcher: HungarianMatcher, *, mask_weight: float, dice_weight: float
    ) -> None:
        """
        Args:
            matcher: assigns queries to targets.
            mask_weight, dice_weight: weight of focal and dice loss against the other losses.
        """
        super().__init__()
        self.matcher = matcher
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight

    def mask_losses(
        self,
        masks: Tensor,
        targets: Targets,
        matches: Sequence[tuple[Tensor, Tensor]],
        count: float,
    ) -> dict[str, Tensor]:
        """``loss_mask`` and ``loss_dice`` of one decoder layer.

        Args:
            masks: mask logits (B, Q, h, w).
            targets, matches: see :class:`HungarianMatcher`.
            count: what their sums are divided by, see :func:`share_of_batch`.
        """
        pairs = list(zip(masks, targets, matches, strict=True))
        predicted = torch.cat([image[queries] for image, _, (queries, _) in pairs])
        truth = torch.cat([target["masks"][chosen] for _, target, (_, chosen) in pairs])
        predicted = F.interpolate(predicted[:, None], size=truth.shape[-2:], mode="bilinear")
        flat, truth = predicted.flatten(1), truth.flatten(1).to(predicted.dtype)
        return {
            "loss_mask": self.mask_weight * focal_loss(flat, truth).sum() / count,
            "loss_dice": self.dice_weight * dice_loss(flat, truth).sum() / count,
        }


class SetCriterion(MaskCriterion):
    """Weighted losses of every decoder layer, each matched on its own."""

    empty_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        matcher: HungarianMatcher,
        *,
        mask_weight: float,
        dice_weight: float,
        no_object_weight: float,
    ) -> None:
        """
        Args:
            num_classes: words of the training vocabulary, without the no-object class; only sizes
                ``empty_weight``, a buffer of the released checkpoints. A batch may have any words.
            matcher, mask_weight, dice_weight: see :class:`MaskCriterion`.
            no_object_weight: weight of unmatched queries in the cross entropy.
        """
        super().__init__(matcher, mask_weight=mask_weight, dice_weight=dice_weight)
        self.no_object_weight = no_object_weight
        weight = torch.ones(num_classes + 1)
        weight[-1] = no_object_weight
        # a checkpoint's value takes its place, and is not used
        self.register_buffer("empty_weight", weight)

    def forward(self, layers: list[tuple[Tensor, Tensor]], targets: Targets) -> dict[str, Tensor]:
        """Sum up the losses of a batch.

        Args:
            layers: class logits (B, Q, C + 1) and mask logits (B, Q, h, w) of each decoder layer,
                the last layer first.
            targets: see :class:`HungarianMatcher`.

        Returns:
            ``loss_ce``, ``loss_mask`` and ``loss_dice`` of the last layer and, with a suffix
            ``_0``, ``_1`` ..., of the others, weighted.
        """
        count = share_of_batch(float(sum(len(t["labels"]) for t in targets)), 1.0, self._device)
        return losses_of_layers(
            self._layer(logits, masks, targets, count) for logits, masks in layers
        )

    @property
    def _device(self) -> torch.device:
        return self.empty_weight.device

    def _layer(
        self, logits: Tensor, masks: Tensor, targets: Targets, count: float
    ) -> dict[str, Tensor]:
        matches = self.matcher(logits, masks, targets)
        no_object = logits.shape[-1] - 1
        wanted = torch.full(logits.shape[:2], no_object, dtype=torch.int64, device=logits.device)
        for i, ((queries, chosen), target) in enumerate(zip(matches, targets, strict=True)):
            wanted[i, queries] = target["labels"][chosen]
        weight = torch.ones(no_object + 1, device=logits.device)
        weight[-1] = self.no_object_weight
        cross_entropy = F.cross_entropy(logits.transpose(1, 2), wanted, weight)
        if comm.get_world_size() > 1:
            # the weighted mean over all processes' queries, in place of over this one's
            own = float(weight[wanted].sum())
            cross_entropy = cross_entropy * own / share_of_batch(own, 0.0, self._device)
        return {"loss_ce": cross_entropy, **self.mask_losses(masks, targets, matches, count)}
