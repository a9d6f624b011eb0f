"""One pass of the whole image through CLIP's vision transformer for all of its regions.

Each region has its own copy of the class token. From one block on it attends to the class token, to
itself and to the patches that its mask covers, and nothing attends to it, so that the patches are
those of the image alone. It follows MaskCLIP ("Open-Vocabulary Universal Image Segmentation with
MaskCLIP", ICML 2023). The published OVSeg shows CLIP a crop of each region instead.

Without training this is far less accurate than crops. :class:`RegionTokens` holds what is trained
for it: queries of the copies' own ("MasQCLIP", ICCV 2023), or a learned bias in place of the hard
mask ("MaskCLIP++", 2024). Pooling the last block's values under each mask ("TextRegion", 2025)
needs no copies at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.errors import UserError

from .adapter import ClipAdapter
from .attention import finish_block, join_heads, split_heads
from .region_tokens import RegionTokens, read_region_tokens
from .visual import MaskPromptedViT

# added to the logits of patches outside of a mask, where there is a learned bias inside
_OUTSIDE = -100.0


def patch_grid(image_size: Sequence[int], resolution: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches of an image whose shorter side is resized to ``resolution``."""
    height, width = image_size
    scale = resolution / min(height, width) / patch
    return max(1, round(height * scale)), max(1, round(width * scale))


def covered_patches(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which patches each mask covers: those with a pixel of it.

    Args:
        masks: bool (Q, H, W), each with a pixel.
        grid: rows and columns.

    Returns:
        bool (Q, rows * columns), at least one true in each row.
    """
    if not len(masks):
        return masks.new_zeros((0, grid[0] * grid[1]))
    return F.adaptive_max_pool2d(masks[None].float(), grid)[0].flatten(1) > 0


def region_features(
    visual: MaskPromptedViT,
    images: Tensor,
    covered: Tensor,
    *,
    first_block: int = 0,
    tokens: RegionTokens | None = None,
    readout: str = "tokens",
) -> Tensor:
    """Features of the regions of images.

    Args:
        visual: CLIP's image tower.
        images: normalised RGB (B, 3, h, w), sides multiples of the patch.
        covered: bool (B, Q, P); see :func:`covered_patches`.
        first_block: from which the copies take part; 0: all blocks.
        tokens: trained for them, from ``first_block`` on.
        readout: "tokens", or "values" for the last block's values under the mask.

    Returns:
        (B, Q, embed_dim), not normalised.
    """
    blocks: Any = visual.transformer.resblocks
    x = _embed(visual, images)
    if readout == "values":
        for block in blocks[:-1]:
            x = block(x)
        return _pooled_values(visual, x, covered)
    for block in blocks[:first_block]:
        x = block(x)
    copies = x[:, :1].expand(-1, covered.shape[1], -1)
    # the class token comes before the patches
    seen = F.pad(covered, (1, 0), value=True)
    for place, block in enumerate(blocks[first_block:]):
        last = block is blocks[-1]  # nothing reads the patches after it
        x, copies = _block(block, x, copies, seen, tokens, place, last)
    return visual.ln_post(copies) @ visual.proj


def _embed(visual: MaskPromptedViT, images: Tensor) -> Tensor:
    """Class token and patches (B, 1 + P, D) of images of any size, with their positions."""
    maps = visual.conv1(images)
    x = maps.flatten(2).transpose(1, 2)
    class_token = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    positions = visual.positional_embedding
    side = round((len(positions) - 1) ** 0.5)
    # of the same size they stay as they are; a graph for any size may not ask for that
    if torch.compiler.is_exporting() or maps.shape[-2:] != (side, side):
        grid = positions[1:].view(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=maps.shape[-2:], mode="bicubic")
        positions = torch.cat([positions[:1], grid[0].flatten(1).T])
    x = torch.cat([class_token, x], dim=1) + positions.to(x.dtype)
    embedded: Tensor = visual.ln_pre(x)
    return embedded


def _block(
    block: Any, x: Tensor, copies: Tensor, seen: Tensor, tokens: RegionTokens | None,
    place: int, last: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """A block for tokens (B, T, D) and the copies (B, Q, D) that see some of them."""
    attn = block.attn
    weight, bias, width = attn.in_proj_weight, attn.in_proj_bias, x.shape[-1]
    split = split_heads(attn.num_heads)
    normed, normed_copies = block.ln_1(x), block.ln_1(copies)
    keys, values = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    own_keys, own_values = F.linear(normed_copies, weight[width:], bias[width:]).chunk(2, dim=-1)
    query_weight, query_bias = weight[:width], bias[:width]
    queries = F.linear(normed, query_weight, query_bias)
    if tokens is not None and tokens.queries is not None and tokens.query_bias is not None:
        query_weight, query_bias = tokens.queries[place], tokens.query_bias[place]
    attended = F.scaled_dot_product_attention(
        split(F.linear(normed_copies, query_weight, query_bias)),
        split(torch.cat([keys, own_keys], dim=1)),
        split(torch.cat([values, own_values], dim=1)),
        attn_mask=_attention_mask(seen, tokens, place, x.dtype),
    )
    copies = finish_block(block, copies, join_heads(attended))
    if not last:
        attended = F.scaled_dot_product_attention(split(queries), split(keys), split(values))
        x = finish_block(block, x, join_heads(attended))
    return x, copies


def _attention_mask(
    seen: Tensor, tokens: RegionTokens | None, place: int, dtype: torch.dtype
) -> Tensor:
    """What is added to the logits of copies, (B, 1 or heads, Q, T + Q), or which are kept."""
    count = seen.shape[1]
    itself = torch.eye(count, dtype=torch.bool, device=seen.device).expand(len(seen), -1, -1)
    allowed = torch.cat([seen, itself], dim=2)[:, None]
    if tokens is None or tokens.inside is None:
        return allowed
    strength = tokens.inside[place].exp().to(dtype)[:, None, None]
    patches = seen[:, None, :, 1:]
    inside = torch.where(patches, strength, _OUTSIDE)  # (B, heads, Q, P)
    none = inside.new_zeros((*inside.shape[:3], 1))
    others = torch.zeros_like(itself, dtype=dtype).masked_fill(~itself, -torch.inf)
    others = others[:, None].expand(-1, inside.shape[1], -1, -1)
    return torch.cat([none, inside, others], dim=3)


def _pooled_values(visual: MaskPromptedViT, x: Tensor, covered: Tensor) -> Tensor:
    block: Any = visual.transformer.resblocks[-1]
    attn, width = block.attn, x.shape[-1]
    bias = attn.in_proj_bias[2 * width :]
    values = F.linear(block.ln_1(x[:, 1:]), attn.in_proj_weight[2 * width :], bias)
    shares = covered.to(values.dtype)
    pooled = (shares / shares.sum(dim=-1, keepdim=True)) @ values
    return visual.ln_post(block.ls_1(attn.out_proj(pooled))) @ visual.proj


class SharedPass:
    """Gives features of an image's regions by one pass of the image."""

    def __init__(
        self,
        clip_adapter: ClipAdapter,
        *,
        resolution: int = 0,
        first_block: int = 0,
        readout: str = "tokens",
        weights: str = "",
    ) -> None:
        """
        Args:
            clip_adapter: the CLIP of the model.
            resolution: of the shorter side in pixels, rounded to whole patches; 0: CLIP's own.
            first_block, readout: see :func:`region_features`.
            weights: a file of :class:`RegionTokens`; "": there are none.

        Raises:
            UserError: the CLIP cannot do it, or a setting does not fit it.
        """
        visual = clip_adapter.clip_model.visual
        if not isinstance(visual, MaskPromptedViT):
            raise UserError(
                "MODEL.CLIP_ADAPTER.REGION_ENCODER: a shared pass needs open_clip's own vision "
                "transformer with a class token; set it to crops for this CLIP"
            )
        blocks = len(visual.transformer.resblocks)
        if not 0 <= first_block < blocks:
            raise UserError(
                f"MODEL.CLIP_ADAPTER.SHARED_FIRST_BLOCK {first_block}: this CLIP has {blocks} "
                f"blocks; give 0..{blocks - 1}"
            )
        self.clip_adapter = clip_adapter
        self.resolution = resolution
        self.first_block = first_block
        self.readout = readout
        self.tokens = read_region_tokens(weights, visual, first_block) if weights else None

    @property
    def patch(self) -> int:
        """The side of a patch in pixels."""
        visual: Any = self.clip_adapter.clip_model.visual
        return int(visual.conv1.kernel_size[0])

    @property
    def short_side(self) -> int:
        """Of the image that CLIP sees, in pixels, before it is rounded to whole patches."""
        return self.resolution or self.clip_adapter.input_size[0]

    def __call__(self, image: Tensor, masks: Tensor) -> Tensor:
        """Features float32 (Q, embed_dim) of an image's regions, not normalised.

        Args:
            image: RGB (3, H, W), 0..255.
            masks: bool (Q, H, W), each with a pixel.
        """
        adapter = self.clip_adapter
        visual: Any = adapter.clip_model.visual
        grid = patch_grid(image.shape[-2:], self.short_side, self.patch)
        pixels = (image[None].float() - adapter.pixel_mean) / adapter.pixel_std
        size = [side * self.patch for side in grid]
        resized = F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
        tokens = None if self.tokens is None else self.tokens.to(image.device)
        features = region_features(
            visual,
            resized,
            covered_patches(masks, grid)[None],
            first_block=self.first_block,
            tokens=tokens,
            readout=self.readout,
        )
        return features[0].float()
