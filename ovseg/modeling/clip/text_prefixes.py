"""OpenAI's text tower for texts that begin alike, each beginning computed once.

The tower is causal: what it makes of a token depends on that token and those before it. "a photo of
a door." and "a photo of a door in the scene" therefore share all that is computed up to "door". The
tokens of many texts are a tree then, and every linear layer runs on the nodes of this tree, without
padding. Attention alone looks at whole texts: their keys and values are those of their nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import finish_block


@dataclass(frozen=True)
class PrefixTree:
    """The tokens of T texts, of at most L tokens, as a tree of N nodes.

    Args:
        tokens: int64 (N,), ids.
        places: int64 (N,), their positions in their texts.
        rows: int64 (N,), for each node one of the texts it belongs to.
        nodes: int64 (T, L), the nodes of the texts; after the end of a text any node.
        ends: int64 (T,), the nodes of the end tokens.
    """

    tokens: Tensor
    places: Tensor
    rows: Tensor
    nodes: Tensor
    ends: Tensor

    def to(self, device: torch.device) -> PrefixTree:
        """The same on another device."""
        return PrefixTree(*(each.to(device) for each in vars(self).values()))


def in_order(tokens: Tensor) -> Tensor:
    """Places (T,) that sort texts (T, context) by their tokens, so that like beginnings meet."""
    order = torch.arange(len(tokens))
    for column in reversed(range(tokens.shape[1])):
        order = order[tokens[order, column].argsort(stable=True)]
    return order


def prefix_tree(tokens: Tensor) -> PrefixTree:
    """The tree of texts.

    Args:
        tokens: int64 (T, context), sorted as by :func:`in_order`; the end token has the largest id.
    """
    ends = tokens.argmax(dim=1)
    tokens = tokens[:, : int(ends.max()) + 1]
    begins_as_before = (tokens[1:] == tokens[:-1]).cumprod(dim=1).bool()
    new = F.pad(~begins_as_before, (0, 0, 1, 0), value=True)
    new &= torch.arange(tokens.shape[1]) <= ends[:, None]
    rows, places = new.nonzero(as_tuple=True)
    numbers = torch.zeros_like(tokens)
    numbers[rows, places] = torch.arange(len(rows))
    # numbers grow from text to text: the largest so far is the text's own or that of the one above
    nodes = numbers.cummax(dim=0).values
    last = nodes.gather(1, ends[:, None])[:, 0]
    return PrefixTree(tokens[rows, places], places, rows, nodes, last)


def encode_tree(model: open_clip.CLIP, tree: PrefixTree) -> Tensor:
    """Features (T, embed_dim) of the texts of a tree, not normalised.

    Args:
        model: a CLIP whose text tower is OpenAI's.
        tree: on the device of the model.
    """
    x = model.token_embedding(tree.tokens) + model.positional_embedding[tree.places]
    blocks = model.transformer.resblocks
    for block in blocks[:-1]:
        x = finish_block(block, x, _attention(block.attn, block.ln_1(x), tree))
    # of the last block only the end tokens are read
    block = blocks[-1]
    attended = _attention_of_ends(block.attn, block.ln_1(x), tree)
    x = finish_block(block, x[tree.ends], attended)
    return model.ln_final(x) @ model.text_projection


def _attention(attn: Any, x: Tensor, tree: PrefixTree) -> Tensor:
    """Each node attends to itself and the nodes before it in its texts; (N, D)."""
    query, key, value = _of_texts(
        F.linear(x, attn.in_proj_weight, attn.in_proj_bias), 3, attn, tree
    )
    found = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return found[tree.rows, :, tree.places].flatten(1)


def _attention_of_ends(attn: Any, x: Tensor, tree: PrefixTree) -> Tensor:
    """The end of each text attends to the whole text; (T, D)."""
    width = x.shape[1]
    weights, bias = attn.in_proj_weight, attn.in_proj_bias
    query = F.linear(x[tree.ends], weights[:width], bias[:width])
    query = query.view(len(query), attn.num_heads, 1, -1)
    key, value = _of_texts(F.linear(x, weights[width:], bias[width:]), 2, attn, tree)
    length = tree.nodes.shape[1]
    own = torch.arange(length, device=x.device) <= tree.places[tree.ends][:, None]
    found = F.scaled_dot_product_attention(query, key, value, attn_mask=own[:, None, None])
    return found.flatten(1)


def _of_texts(x: Tensor, parts: int, attn: Any, tree: PrefixTree) -> tuple[Tensor, ...]:
    """Queries, keys or values (T, heads, L, width of a head) of the texts, from (N, parts x D)."""
    texts = x[tree.nodes].unflatten(-1, (parts, attn.num_heads, -1))
    return texts.permute(2, 0, 3, 1, 4).unbind()
