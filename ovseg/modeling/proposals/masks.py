"""Masks at the size of the image, MaskFormer's own and given ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.errors import UserError
from ovseg.structures import GivenProposals

# Pixels of the masks that are enlarged at once; 2^22 floats are 16 MB. All masks at once, before
# and after the sigmoid, would be the most memory that an image takes.
_PIXELS = 2**22


def image_masks(logits: Tensor, size: Sequence[int], padded: Sequence[int]) -> Tensor:
    """Mask probabilities float32 (Q, H, W) of an image.

    Args:
        logits: (Q, h, w), of the padded image.
        size: H, W of the image without its padding, which is at the right and bottom.
        padded: height and width with it.
    """
    height, width = size
    masks = logits.new_empty((len(logits), height, width), dtype=torch.float32)
    at_once = max(1, _PIXELS // (padded[0] * padded[1]))
    for first in range(0, len(logits), at_once):
        part = slice(first, first + at_once)
        enlarged = F.interpolate(logits[None, part].float(), size=tuple(padded), mode="bilinear")[0]
        masks[part] = enlarged[:, :height, :width].sigmoid()
    return masks


def fit_given(
    given: GivenProposals, size: Sequence[int], width: int, device: torch.device
) -> GivenProposals:
    """Given proposals at an image's size, float32 on ``device``.

    Args:
        given: at any resolution.
        size: height and width of the image.
        width: of the text features that embeddings are compared with.

    Raises:
        UserError: the embeddings have another width.
    """
    masks = given.masks.to(device, torch.float32)
    if len(masks) == 0:
        masks = masks.new_zeros((0, *size))
    elif masks.shape[-2:] != tuple(size):
        masks = F.interpolate(masks[None], size=tuple(size), mode="bilinear", antialias=True)[0]
    if given.embeddings is None:
        return GivenProposals(masks)
    embeddings = given.embeddings.to(device, torch.float32)
    if embeddings.shape[1] != width:
        raise UserError(
            f"the proposals' embeddings have {embeddings.shape[1]} numbers, this CLIP's text "
            f"features {width}; make the proposals with this model, or leave embeddings out"
        )
    return GivenProposals(masks, embeddings)
