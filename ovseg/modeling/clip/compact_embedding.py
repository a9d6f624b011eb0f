"""A token embedding that holds only the tokens in use.

CLIP's vocabulary has 49 408 tokens; a small model trained on a few hundred words needs a few
hundred rows. The ids stay those of the ordinary tokenizer, so nothing else has to know: the
embedding looks up its row itself, and every token it does not hold shares row 0.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

UNKNOWN = -1


class CompactTokenEmbedding(nn.Module):
    """Drop-in for CLIP's ``token_embedding``.

    State: ``weight`` float ``(N, width)`` and ``token_ids`` int64 ``(N,)``, ascending, where
    ``token_ids[0]`` is -1 and stands for every token that is not listed.
    """

    weight: nn.Parameter
    token_ids: Tensor

    def __init__(self, num_rows: int, width: int) -> None:
        """Make room for ``num_rows`` rows (row 0 included); ids come from a state dict."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_rows, width))
        nn.init.normal_(self.weight, std=0.02)
        # distinct and ascending until real ids are loaded
        self.register_buffer("token_ids", torch.arange(num_rows) + UNKNOWN)

    @classmethod
    def from_ids(cls, ids: Iterable[int], width: int) -> CompactTokenEmbedding:
        """Embedding for the tokens ``ids`` (repeats and order do not matter)."""
        rows = [UNKNOWN, *sorted(set(ids))]
        if len(rows) > 1 and rows[1] < 0:
            raise ValueError(f"token ids must not be negative, got {rows[1]}")
        embedding = cls(len(rows), width)
        embedding.token_ids = torch.tensor(rows, dtype=torch.int64)
        return embedding

    def rows(self, tokens: Tensor) -> Tensor:
        """Row of every token id; same shape, 0 where the token is unknown."""
        # searchsorted gives the last place too: stay inside the table before comparing
        places = torch.searchsorted(self.token_ids, tokens.long().contiguous())
        places = places.clamp(max=len(self.token_ids) - 1)
        return torch.where(self.token_ids[places] == tokens, places, torch.zeros_like(places))

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed token ids int ``(..., L)`` of the ordinary CLIP tokenizer: ``(..., L, width)``."""
        return functional.embedding(self.rows(tokens), self.weight)
