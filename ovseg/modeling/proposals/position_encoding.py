"""Sine position encoding of feature maps (DETR, ECCV 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_position_encoding(x: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Encode rows and columns by sines and cosines of growing wavelength.

    Args:
        x: feature map (B, C, H, W); only its size and device matter.
        channels: width of the encoding, even; half tells the row, half the column.
        temperature: the longest wavelength's factor.

    Returns:
        float32 [1, channels, H, W]; places run from 0 to 2 pi along each side.
    """
    half = channels // 2
    index = torch.arange(half, device=x.device)
    wavelength = temperature ** (2 * (index // 2) / half)

    def encode(length: int) -> Tensor:
        place = torch.arange(1, length + 1, dtype=torch.float32, device=x.device)
        phase = (place / (length + 1e-6) * 2 * math.pi)[:, None] / wavelength
        return torch.stack((phase[:, 0::2].sin(), phase[:, 1::2].cos()), dim=2).flatten(1)

    h, w = x.shape[-2:]
    rows = encode(h).T[:, :, None].expand(-1, h, w)
    columns = encode(w).T[:, None, :].expand(-1, h, w)
    return torch.cat((rows, columns))[None]
