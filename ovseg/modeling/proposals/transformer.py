"""Transformer encoder and decoder whose positions are added to queries and keys (DETR)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Layer(nn.Module):
    """What encoder and decoder layers share: self-attention, the MLP, pre- or post-norm."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def _self_attend(self, x: Tensor, position: Tensor) -> Tensor:
        q = x + position
        return self.self_attn(q, q, x, need_weights=False)[0]

    def _mlp(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(F.relu(self.linear1(x))))

    def _residual(
        self, x: Tensor, norm: nn.LayerNorm, sublayer: Callable[[Tensor], Tensor]
    ) -> Tensor:
        if self.pre_norm:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))


class EncoderLayer(_Layer):
    """Self-attention over the places of a map, then an MLP."""

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        x = self._residual(x, self.norm1, lambda y: self._self_attend(y, position))
        return self._residual(x, self.norm2, self._mlp)


class DecoderLayer(_Layer):
    """Self-attention among queries, attention to the map, then an MLP."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(dim, heads, hidden, dropout, pre_norm)
        self.multihead_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, memory: Tensor, position: Tensor, query_position: Tensor
    ) -> Tensor:
        def attend(y: Tensor) -> Tensor:
            return self.multihead_attn(
                y + query_position, memory + position, memory, need_weights=False
            )[0]

        x = self._residual(x, self.norm1, lambda y: self._self_attend(y, query_position))
        x = self._residual(x, self.norm2, attend)
        return self._residual(x, self.norm3, self._mlp)


class Encoder(nn.Module):
    """A stack of encoder layers, with a last norm when layers normalise first."""

    def __init__(
        self, dim: int, heads: int, hidden: int, layers: int, dropout: float, pre_norm: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(dim, heads, hidden, dropout, pre_norm) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim) if pre_norm else None

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """``x`` and ``position``: (B, N, C) and (1, N, C)."""
        for layer in self.layers:
            x = layer(x, position)
        return x if self.norm is None else self.norm(x)


class EncoderOnly(nn.Module):
    """An encoder over a feature map, as the pixel decoder uses it."""

    def __init__(
        self, dim: int, heads: int, hidden: int, layers: int, dropout: float, pre_norm: bool
    ) -> None:
        super().__init__()
        self.encoder = Encoder(dim, heads, hidden, layers, dropout, pre_norm)
        _xavier(self)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """``x``: (B, C, H, W); ``position``: (1, C, H, W); returns (B, C, H, W)."""
        encoded = self.encoder(_flatten(x), _flatten(position))
        return encoded.transpose(1, 2).reshape(x.shape)


class Decoder(nn.Module):
    """A stack of decoder layers; the same norm follows each output."""

    def __init__(
        self, dim: int, heads: int, hidden: int, layers: int, dropout: float, pre_norm: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(dim, heads, hidden, dropout, pre_norm) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, memory: Tensor, position: Tensor, query_position: Tensor) -> Tensor:
        x = torch.zeros_like(query_position)
        outputs = []
        for layer in self.layers:
            x = layer(x, memory, position, query_position)
            outputs.append(self.norm(x))
        return torch.stack(outputs)


class Transformer(nn.Module):
    """Queries that gather what they need from a feature map."""

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        hidden: int,
        encoder_layers: int,
        decoder_layers: int,
        dropout: float,
        pre_norm: bool,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(dim, heads, hidden, encoder_layers, dropout, pre_norm)
        self.decoder = Decoder(dim, heads, hidden, decoder_layers, dropout, pre_norm)
        _xavier(self)

    def forward(self, x: Tensor, position: Tensor, queries: Tensor) -> Tensor:
        """Decode the queries against a map.

        Args:
            x: feature map (B, C, H, W).
            position: its position encoding (1, C, H, W).
            queries: position embedding of the queries (Q, C).

        Returns:
            (L, B, Q, C): the output of each of the L decoder layers.
        """
        place = _flatten(position)
        memory = self.encoder(_flatten(x), place)
        return self.decoder(memory, place, queries[None].expand(x.shape[0], -1, -1))


def _flatten(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _xavier(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
