"""Crops without their background: CLIP's vision transformer on foreground patches alone.

The background of a crop is of one colour and tells nothing (not in the paper, which fills it or
puts mask prompts in its place). Left out, a crop is as many tokens shorter. CLIP has to be adapted
to it: ``train.py --background drop``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import finish_block, join_heads, split_heads
from .visual import MaskPromptedViT

#: crops of about the same length go through together; more of them need more padding
TOGETHER = 8


def foreground_features(visual: MaskPromptedViT, images: Tensor, masks: Tensor) -> Tensor:
    """Features of crops by their foreground patches.

    Args:
        visual: CLIP's image tower.
        images: normalised RGB (B, 3, S, S).
        masks: (B, 1, S, S), above 0 on the region; patches with no such pixel are left out.

    Returns:
        (B, embed_dim), not normalised, in the order of the images.
    """
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = x + visual.positional_embedding[1:].to(x.dtype)
    foreground = ~visual.background_patches(masks)[..., 0]
    lengths = foreground.sum(dim=1)
    features = x.new_empty((len(x), visual.proj.shape[1]))
    for rows in lengths.argsort().split(TOGETHER):
        features[rows] = _encode(visual, x[rows], foreground[rows], lengths[rows])
    return features


def _encode(visual: MaskPromptedViT, x: Tensor, foreground: Tensor, lengths: Tensor) -> Tensor:
    """Features (N, embed_dim) of patches (N, P, D), of which some are in the foreground."""
    longest = int(lengths.max())
    # foreground first, in its order
    places = foreground.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
    x = x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
    first = (visual.class_embedding + visual.positional_embedding[0]).to(x.dtype)
    x = visual.ln_pre(torch.cat([first.expand(len(x), 1, -1), x], dim=1))
    seen = None
    if int(lengths.min()) < longest:
        index = torch.arange(longest + 1, device=x.device)
        seen = (index <= lengths[:, None])[:, None, None]
    blocks: Any = visual.transformer.resblocks
    for block in blocks:
        normed, attn, width = block.ln_1(x), block.attn, x.shape[-1]
        split = split_heads(attn.num_heads)
        weight, bias = attn.in_proj_weight, attn.in_proj_bias
        if block is blocks[-1]:  # nothing reads its other outputs
            x = x[:, :1]
        queries = F.linear(normed[:, : x.shape[1]], weight[:width], bias[:width])
        keys, values = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(
            split(queries), split(keys), split(values), attn_mask=seen
        )
        x = finish_block(block, x, join_heads(attended))
    return visual.ln_post(x[:, 0]) @ visual.proj
