"""MaskFormer's transformer and pixel decoders once more, by plain tensor operations.

Written from the papers (DETR, ECCV 2020, section 3.2 and appendix A.4; MaskFormer, NeurIPS 2021,
section 3.3; "On Layer Normalization in the Transformer Architecture", ICML 2020, for the norm's
place) and from the names that published checkpoints give to the weights. Everything is float64.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Weights:
    """Weights of a module by the names of published checkpoints; ``unread`` are left over."""

    def __init__(self, module: nn.Module) -> None:
        self._values = {key: value.double() for key, value in module.state_dict().items()}
        self.unread = set(self._values)

    def __getitem__(self, name: str) -> Tensor:
        self.unread.discard(name)
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        deviation = (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return centred / deviation * self[f"{name}.weight"] + self[f"{name}.bias"]

    def conv(self, name: str, x: Tensor) -> Tensor:
        """A convolution that keeps the size, and GroupNorm of 32 groups where there is one."""
        kernel = self[f"{name}.weight"]
        x = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
        if f"{name}.bias" in self:
            x = x + self[f"{name}.bias"][:, None, None]
        if f"{name}.norm.weight" not in self:
            return x
        groups = x.reshape(len(x), 32, -1)
        centred = groups - groups.mean(dim=-1, keepdim=True)
        deviation = (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        scale, shift = self[f"{name}.norm.weight"], self[f"{name}.norm.bias"]
        return (centred / deviation).reshape(x.shape) * scale[:, None, None] + shift[:, None, None]


def randomise(module: nn.Module, seed: int) -> None:
    """Weights of which none is 0 or 1, so that each shows, and that keep values of usual size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise / max(2.0, math.sqrt(parameter[0].numel())))


def sine_position(height: int, width: int, channels: int) -> Tensor:
    """(channels, height, width): rows in the first half of the channels, columns in the second."""
    half = channels // 2
    result = torch.zeros(channels, height, width, dtype=torch.float64)
    for channel in range(half):
        wavelength = 10000 ** (2 * (channel // 2) / half)
        wave = math.cos if channel % 2 else math.sin
        for row in range(height):
            result[channel, row] = wave((row + 1) / (height + 1e-6) * 2 * math.pi / wavelength)
        for column in range(width):
            value = wave((column + 1) / (width + 1e-6) * 2 * math.pi / wavelength)
            result[half + channel, :, column] = value
    return result


def attention(
    weights: Weights, name: str, query: Tensor, key: Tensor, value: Tensor, heads: int
) -> Tensor:
    """Scaled dot products; ``query`` (B, M, C), ``key`` and ``value`` (B, N, C)."""
    width = query.shape[-1]
    matrices = weights[f"{name}.in_proj_weight"].split(width)
    shifts = weights[f"{name}.in_proj_bias"].split(width)
    q, k, v = (
        x @ matrix.T + shift
        for x, matrix, shift in zip((query, key, value), matrices, shifts, strict=True)
    )
    outputs = []
    for columns in torch.arange(width).chunk(heads):
        scores = q[..., columns] @ k[..., columns].transpose(1, 2) / math.sqrt(width / heads)
        outputs.append(scores.softmax(dim=-1) @ v[..., columns])
    return weights.linear(f"{name}.out_proj", torch.cat(outputs, dim=-1))


def mlp(weights: Weights, name: str, x: Tensor) -> Tensor:
    hidden = weights.linear(f"{name}.linear1", x).clamp(min=0)
    return weights.linear(f"{name}.linear2", hidden)


def encoder(
    weights: Weights,
    name: str,
    x: Tensor,
    position: Tensor,
    *,
    layers: int,
    heads: int,
    pre_norm: bool,
) -> Tensor:
    """DETR's encoder: ``x`` (B, N, C), ``position`` (N, C)."""
    for layer in (f"{name}.layers.{index}" for index in range(layers)):
        if pre_norm:
            y = weights.layer_norm(f"{layer}.norm1", x)
            x = x + attention(weights, f"{layer}.self_attn", y + position, y + position, y, heads)
            x = x + mlp(weights, layer, weights.layer_norm(f"{layer}.norm2", x))
        else:
            y = attention(weights, f"{layer}.self_attn", x + position, x + position, x, heads)
            x = weights.layer_norm(f"{layer}.norm1", x + y)
            x = weights.layer_norm(f"{layer}.norm2", x + mlp(weights, layer, x))
    # layers that normalise first leave their sum as it is
    return weights.layer_norm(f"{name}.norm", x) if pre_norm else x


def decoder(
    weights: Weights,
    name: str,
    memory: Tensor,
    position: Tensor,
    queries: Tensor,
    *,
    layers: int,
    heads: int,
    pre_norm: bool,
) -> Tensor:
    """DETR's decoder: ``memory`` (B, N, C), ``queries`` (Q, C); (layers, B, Q, C)."""
    x = torch.zeros(len(memory), *queries.shape, dtype=torch.float64)
    outputs = []
    for layer in (f"{name}.layers.{index}" for index in range(layers)):
        if pre_norm:
            y = weights.layer_norm(f"{layer}.norm1", x)
            x = x + attention(weights, f"{layer}.self_attn", y + queries, y + queries, y, heads)
            y = weights.layer_norm(f"{layer}.norm2", x) + queries
            x = x + attention(
                weights, f"{layer}.multihead_attn", y, memory + position, memory, heads
            )
            x = x + mlp(weights, layer, weights.layer_norm(f"{layer}.norm3", x))
        else:
            y = attention(weights, f"{layer}.self_attn", x + queries, x + queries, x, heads)
            x = weights.layer_norm(f"{layer}.norm1", x + y)
            y = attention(
                weights, f"{layer}.multihead_attn", x + queries, memory + position, memory, heads
            )
            x = weights.layer_norm(f"{layer}.norm2", x + y)
            x = weights.layer_norm(f"{layer}.norm3", x + mlp(weights, layer, x))
        outputs.append(weights.layer_norm(f"{name}.norm", x))
    return torch.stack(outputs)


def places(x: Tensor) -> Tensor:
    """(..., C, H, W) as a sequence (..., H * W, C), row by row."""
    return x.flatten(-2).transpose(-1, -2)


def encoded_map(
    weights: Weights, coarsest: Tensor, *, layers: int, heads: int, pre_norm: bool
) -> Tensor:
    """What ``TransformerEncoderPixelDecoder`` makes of the coarsest map: (B, conv_dim, H, W)."""
    x = weights.conv("input_proj", coarsest)
    position = places(sine_position(*x.shape[-2:], x.shape[1]))
    encoded = encoder(
        weights,
        "transformer.encoder",
        places(x),
        position,
        layers=layers,
        heads=heads,
        pre_norm=pre_norm,
    )
    return encoded.transpose(1, 2).reshape(x.shape)


def mask_features(weights: Weights, maps: list[Tensor]) -> Tensor:
    """FPN over ``maps``, finest first."""
    y = weights.conv(f"layer_{len(maps)}", maps[-1]).clamp(min=0)
    for level in range(len(maps) - 1, 0, -1):
        lateral = weights.conv(f"adapter_{level}", maps[level - 1])
        rows, columns = (
            torch.arange(new) * old // new
            for old, new in zip(y.shape[-2:], lateral.shape[-2:], strict=True)
        )
        y = weights.conv(f"layer_{level}", lateral + y[..., rows[:, None], columns]).clamp(min=0)
    return weights.conv("mask_features", y)
