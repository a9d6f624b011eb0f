"""Parts of a transformer block of open_clip's, for sequences that it does not take itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def split_heads(heads: int) -> Callable[[Tensor], Tensor]:
    """What makes (B, heads, T, D / heads) of (B, T, D)."""
    return lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(attended: Tensor) -> Tensor:
    """(B, T, D) of (B, heads, T, D / heads)."""
    return attended.transpose(1, 2).flatten(2)


def finish_block(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """What follows the attention in a block.

    Args:
        block: open_clip's ``ResidualAttentionBlock``.
        x: its input (..., D).
        attended: (..., D), before the output projection.
    """
    x = x + block.ls_1(block.attn.out_proj(attended))
    finished: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return finished
