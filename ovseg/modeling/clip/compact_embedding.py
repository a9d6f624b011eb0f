"""A token embedding for a small vocabulary that keeps the ids of CLIP's ordinary tokenizer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNKNOWN = -1


class CompactTokenEmbedding(nn.Module):
    """Embeds the token ids in use; every other id shares row 0.

    State: ``weight`` float [N, width] and ``token_ids`` int64 [N], ascending, of which the first
    is -1 and stands for all tokens that are not listed.
    """

    token_ids: Tensor

    def __init__(self, rows: int, width: int) -> None:
        """``rows``: tokens in use and one; which tokens these are comes with the state dict."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))
        nn.init.normal_(self.weight, std=0.02)
        self.register_buffer("token_ids", torch.arange(rows) - 1)

    @classmethod
    def of_tokens(cls, ids: Iterable[int], width: int) -> CompactTokenEmbedding:
        """An embedding of the given ids (the row of unknown tokens is added)."""
        listed = sorted(set(ids))
        embedding = cls(len(listed) + 1, width)
        embedding.token_ids.copy_(torch.tensor([UNKNOWN, *listed]))
        return embedding

    def forward(self, tokens: Tensor) -> Tensor:
        """``tokens``: int64 [B, L], ids of CLIP's tokenizer; returns [B, L, width]."""
        row = torch.searchsorted(self.token_ids, tokens).clamp(max=len(self.token_ids) - 1)
        row = torch.where(self.token_ids[row] == tokens, row, 0)
        return F.embedding(row, self.weight)
