"""Swin Transformer as a detectron2 backbone.

"Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021. Parameter
names are those of the official checkpoints, so that these load after the conversion of
``tools/convert-pretrained-swin-model-to-d2.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth


def to_windows(x: Tensor, size: int, rows: int, columns: int) -> Tensor:
    """Cut maps (B, rows * size, columns * size, C) into windows (B, rows * columns, size^2, C)."""
    b, c = x.shape[0], x.shape[-1]
    x = x.view(b, rows, size, columns, size, c).transpose(2, 3)
    return x.reshape(b, rows * columns, size * size, c)


def from_windows(windows: Tensor, size: int, rows: int, columns: int) -> Tensor:
    """Undo :func:`to_windows`."""
    b, c = windows.shape[0], windows.shape[-1]
    x = windows.view(b, rows, columns, size, size, c).transpose(2, 3)
    return x.reshape(b, rows * size, columns * size, c)


def window_counts(x: Tensor, size: int) -> tuple[int, int]:
    """Rows and columns of windows that cover maps (B, H, W, C)."""
    return (x.shape[1] + size - 1) // size, (x.shape[2] + size - 1) // size


def position_pairs(size: int) -> Tensor:
    """Row of the bias table for each pair of places in a window, int64 [size^2, size^2]."""
    place = torch.stack(
        torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    ).flatten(1)
    offset = place[:, :, None] - place[:, None, :] + size - 1
    return offset[0] * (2 * size - 1) + offset[1]


def shift_mask(rows: int, columns: int, size: int, device: torch.device) -> Tensor:
    """Additive mask that keeps apart what a cyclic shift of ``rows`` x ``columns`` windows brought
    together.

    Returns float [windows, size^2, size^2]: 0 between places of one part of the map, else -100.
    """

    def part(windows: int) -> Tensor:
        length = windows * size
        index = torch.arange(length, device=device)
        return (index >= length - size).int() + (index >= length - size // 2).int()

    parts = (3 * part(rows)[:, None] + part(columns)[None, :]).float()
    windows = to_windows(parts[None, :, :, None], size, rows, columns)[0, ..., 0]
    return (windows[:, None, :] != windows[:, :, None]).float() * -100.0


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned relative position bias."""

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        window: int,
        heads: int,
        qkv_bias: bool,
        qk_scale: float | None,
        attn_drop: float,
        drop: float,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = qk_scale or (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", position_pairs(window))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x``: windows (B, W, N, C); ``mask``: (W, N, N), added to the attention logits."""
        b, windows, n, c = x.shape
        qkv = self.qkv(x).view(b, windows, n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(n, n, self.heads).permute(2, 0, 1)
        attention = (q * self.scale) @ k.transpose(-2, -1) + bias
        if mask is not None:
            attention = attention + mask[:, None]
        attention = self.attn_drop(attention.softmax(dim=-1))
        x = (attention.to(v.dtype) @ v).transpose(2, 3).reshape(b, windows, n, c)
        return self.proj_drop(self.proj(x))


class FeedForward(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class SwinBlock(nn.Module):
    """Window attention (shifted or not) and an MLP, each with a residual connection."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        window: int,
        shifted: bool,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop: float,
        attn_drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = window // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads, qkv_bias, qk_scale, attn_drop, drop)
        self.drop_path = StochasticDepth(drop_path, mode="row")
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x``: map (B, H, W, C); ``mask``: :func:`shift_mask` of the padded map."""
        x = x + self.drop_path(self._attend(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        h, w = x.shape[1:3]
        rows, columns = window_counts(x, self.window)
        x = F.pad(x, (0, 0, 0, columns * self.window - w, 0, rows * self.window - h))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = to_windows(x, self.window, rows, columns)
        windows = self.attn(windows, mask if self.shift else None)
        x = from_windows(windows, self.window, rows, columns)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return x[:, :h, :w]


class PatchMerging(nn.Module):
    """Halve the map: four neighbours become one place of twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        b, h, w, c = x.shape
        # the neighbour below comes before the one on the right
        corners = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(corners.reshape(b, h // 2, w // 2, 4 * c)))


class SwinStage(nn.Module):
    """The blocks of one resolution and the merging that leads to the next."""

    def __init__(self, blocks: Sequence[SwinBlock], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.window = blocks[0].window

    def forward(self, x: Tensor, use_checkpoint: bool) -> Tensor:
        mask = shift_mask(*window_counts(x, self.window), self.window, x.device)
        for block in self.blocks:
            if use_checkpoint and self.training:
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask)
        return x


class PatchEmbed(nn.Module):
    """Cut the image into patches and project each: (B, 3, H, W) to (B, H/p, W/p, C)."""

    def __init__(self, patch: int, dim: int, norm: bool) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(dim) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        x = self.proj(F.pad(x, (0, -w % self.patch, 0, -h % self.patch))).permute(0, 2, 3, 1)
        return x if self.norm is None else self.norm(x)


@BACKBONE_REGISTRY.register()
class D2SwinTransformer(Backbone):
    """Swin Transformer; outputs ``res2`` to ``res5`` at strides 4 to 32."""

    @configurable
    def __init__(
        self,
        *,
        pretrain_img_size: int = 224,
        patch_size: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        ape: bool = False,
        patch_norm: bool = True,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        use_checkpoint: bool = False,
    ) -> None:
        """
        Args:
            pretrain_img_size: side of the pretraining images in pixels; sizes the absolute
                position embedding when ``ape`` is set, otherwise unused.
            depths: blocks of each stage.
            num_heads: attention heads of each stage.
            window_size: side of a window in places of the map.
            drop_path_rate: stochastic depth of the last block; grows from 0 over the blocks.
            out_features: which of ``res2`` to ``res5`` to return.
        """
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.patch_embed = PatchEmbed(patch_size, embed_dim, patch_norm)
        self.absolute_pos_embed: nn.Parameter | None = None
        if ape:
            side = pretrain_img_size // patch_size
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)
        last_block = max(sum(depths) - 1, 1)
        drop_path = [drop_path_rate * i / last_block for i in range(sum(depths))]
        self.layers = nn.ModuleList()
        for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            dim = embed_dim * 2**i
            blocks = [
                SwinBlock(
                    dim,
                    heads,
                    window=window_size,
                    shifted=j % 2 == 1,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    drop=drop_rate,
                    attn_drop=attn_drop_rate,
                    drop_path=drop_path[sum(depths[:i]) + j],
                )
                for j in range(depth)
            ]
            last = i == len(depths) - 1
            self.layers.append(SwinStage(blocks, None if last else PatchMerging(dim)))
            self.add_module(f"norm{i}", nn.LayerNorm(dim))
        self._out_features = list(out_features)
        self._out_feature_strides = {f"res{i + 2}": patch_size * 2**i for i in range(len(depths))}
        self._out_feature_channels = {f"res{i + 2}": embed_dim * 2**i for i in range(len(depths))}
        self.apply(_init_weights)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, object]:
        return {key.lower(): value for key, value in cfg.MODEL.SWIN.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``x``: normalised images (B, 3, H, W); returns maps (B, C, H/stride, W/stride)."""
        x = self.patch_embed(x)
        if self.absolute_pos_embed is not None:
            position = F.interpolate(self.absolute_pos_embed, size=x.shape[1:3], mode="bicubic")
            x = x + position.permute(0, 2, 3, 1)
        x = self.pos_drop(x)
        outputs = {}
        for i, layer in enumerate(self.layers):
            stage: Any = layer  # a SwinStage, or what stands in for it
            x = stage(x, self.use_checkpoint)
            name = f"res{i + 2}"
            if name in self._out_features:
                outputs[name] = getattr(self, f"norm{i}")(x).permute(0, 3, 1, 2).contiguous()
            if stage.downsample is not None:
                x = stage.downsample(x)
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }

    @property
    def size_divisibility(self) -> int:
        return 32


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
