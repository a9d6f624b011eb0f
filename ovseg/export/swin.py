"""Swin stages that can be traced for images of any size.

The model pads its maps, rolls them and cuts them into windows. The lengths of all this are
quotients of the image's, and torch.export takes hours to reason about products of them. Here the
places of all windows' pixels are computed as numbers, and the windows are gathered by them: the
same values, and a graph that knows one new length only, the number of windows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.modeling.backbone.swin import SwinStage, window_counts


class GatheredStage(nn.Module):
    """Stands in for a :class:`SwinStage` and shares its blocks."""

    def __init__(self, stage: SwinStage) -> None:
        """``stage``: in evaluation mode."""
        super().__init__()
        self.blocks = stage.blocks
        self.downsample = stage.downsample
        self.window = stage.window

    def forward(self, x: Tensor, use_checkpoint: bool = False) -> Tensor:
        """``x``: map (B, H, W, C)."""
        shift = self.window // 2
        plain, shifted = (_Places(x, self.window, by) for by in (0, shift))
        for module in self.blocks:
            block: Any = module
            places = shifted if block.shift else plain
            x = x + places.attend(block.attn, block.norm1(x))
            x = x + block.mlp(block.norm2(x))
        return x


class _Places:
    """Where the pixels of a map's windows lie, after a cyclic shift."""

    def __init__(self, x: Tensor, size: int, shift: int) -> None:
        h, w = x.shape[1:3]
        rows, columns = window_counts(x, size)
        # row and column of each window: a table of a length that nothing is known of
        window = torch.ones(rows, columns, device=x.device).nonzero()
        inside = torch.arange(size * size, device=x.device)
        top, left = window[:, :1] * size + inside // size, window[:, 1:] * size + inside % size
        row, column = _rolled(top + shift, rows * size), _rolled(left + shift, columns * size)
        # the place after the last holds the padding
        self.index = torch.where((row < h) & (column < w), row * w + column, h * w)
        back_row = _rolled(torch.arange(h, device=x.device) - shift, rows * size)
        back_column = _rolled(torch.arange(w, device=x.device) - shift, columns * size)
        number = (back_row // size * columns)[:, None] + back_column // size
        self.back = number * size * size + (back_row % size * size)[:, None] + back_column % size
        self.mask = None
        if shift:
            parts = 3 * _part(top, rows * size, size) + _part(left, columns * size, size)
            self.mask = (parts[:, None, :] != parts[:, :, None]).float() * -100.0

    def attend(self, attention: nn.Module, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        padded = F.pad(x.reshape(b, h * w, c), (0, 0, 0, 1))
        count, n = self.index.shape
        windows = padded.index_select(1, self.index.flatten()).view(b, count, n, c)
        windows = attention(windows, self.mask).reshape(b, count * n, c)
        return windows.index_select(1, self.back.flatten()).view(b, h, w, c)


def _rolled(place: Tensor, length: int) -> Tensor:
    """Places less than a length below 0 or above it, moved inside."""
    return torch.where(
        place < 0, place + length, torch.where(place < length, place, place - length)
    )


def _part(place: Tensor, length: int, size: int) -> Tensor:
    """Which of the parts that a shift brings together a row or column belongs to."""
    return (place >= length - size).int() + (place >= length - size // 2).int()


def gathered(backbone: nn.Module) -> nn.Module:
    """A backbone whose Swin stages, if it has any, can be traced; it shares all weights."""
    if not any(isinstance(module, SwinStage) for module in backbone.modules()):
        return backbone
    # a copy of the module itself, not of what is in it
    copy = backbone.__class__.__new__(backbone.__class__)
    copy.__dict__.update(backbone.__dict__)
    copy._modules = dict(backbone._modules)
    layers: Any = backbone.layers
    copy.layers = nn.ModuleList(GatheredStage(stage) for stage in layers)
    return copy
