"""Where new mask prompts start."""

from __future__ import annotations

import open_clip
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from open_clip_training.adaptation.batches import PairImages
from open_clip_training.common.images import normalise
from ovseg.modeling.clip import pixels_of

NUM_CROPS = 256  # crops, of which the prompts are means


def start_prompts(model: open_clip.CLIP, pairs: PairImages, seed: int) -> None:
    """Let each mask prompt start as the mean of the tokens that it replaces.

    Row 0 stays zero, which is the embedding of a patch filled with CLIP's mean colour. Row d
    becomes, at every position, the mean token of background patches after block d, over some
    training crops and with the rows before it in use. So CLIP starts out classifying nearly as it
    does without prompts; zeros in all rows would undo much of what fine-tuning taught it.

    Args:
        model: its ``visual.mask_embedding`` is all zero; changed in place.
        pairs: the training crops with their masks.
        seed: chooses the crops.
    """
    visual = model.visual
    generator = torch.Generator().manual_seed(seed)
    batch = pairs[torch.randperm(len(pairs), generator=generator)[:NUM_CROPS].tolist()]
    device = visual.conv1.weight.device
    images = normalise(batch.images[batch.valid].to(device), *pixels_of(model))
    masks = batch.masks[batch.valid].to(device).float()
    if not len(images):
        return
    background = visual.background_patches(masks)

    def set_row(depth: int) -> RemovableHandle:
        def hook(_block: torch.nn.Module, _inputs: object, output: Tensor) -> None:
            visual.mask_embedding[depth] = _means(output[:, 1:], background)

        return visual.transformer.resblocks[depth - 1].register_forward_hook(hook)

    hooks = [set_row(depth) for depth in range(1, visual.mask_prompt_depth)]
    with torch.no_grad():
        visual(images, masks)
    for handle in hooks:
        handle.remove()


def _means(tokens: Tensor, chosen: Tensor) -> Tensor:
    """Means of the chosen tokens at every position, or over all positions where there is none.

    Args:
        tokens: ``(B, patches, width)``.
        chosen: bool ``(B, patches, 1)``.

    Returns:
        ``(patches, width)``.
    """
    weights = chosen.to(tokens.dtype)
    sums, counts = (tokens * weights).sum(dim=0), weights.sum(dim=0)
    everywhere = sums.sum(dim=0) / counts.sum().clamp(min=1)
    return torch.where(counts > 0, sums / counts.clamp(min=1), everywhere)
