"""A token embedding that holds the tokens in use only."""

from __future__ import annotations

import pytest
import torch

from ovseg.modeling.clip.compact_embedding import CompactTokenEmbedding


def test_known_tokens_have_rows_of_their_own_and_unknown_ones_share_row_0():
    embedding = CompactTokenEmbedding.from_ids([49407, 320, 7, 320], width=3)
    assert embedding.token_ids.tolist() == [-1, 7, 320, 49407]
    tokens = torch.tensor([[320, 0, 7], [49407, 49406, 321]])
    assert embedding.rows(tokens).tolist() == [[2, 0, 1], [3, 0, 0]]
    torch.testing.assert_close(embedding(tokens), embedding.weight[embedding.rows(tokens)])
    assert embedding.rows(tokens.int()).tolist() == [[2, 0, 1], [3, 0, 0]]


def test_embedding_survives_its_state_dict():
    embedding = CompactTokenEmbedding.from_ids([5, 9], width=2)
    assert set(embedding.state_dict()) == {"weight", "token_ids"}
    other = CompactTokenEmbedding(3, 2)
    other.load_state_dict(embedding.state_dict())
    tokens = torch.tensor([9, 5, 6])
    torch.testing.assert_close(other(tokens), embedding(tokens))


def test_negative_token_ids_are_refused():
    with pytest.raises(ValueError, match="negative"):
        CompactTokenEmbedding.from_ids([-1, 4], width=2)
