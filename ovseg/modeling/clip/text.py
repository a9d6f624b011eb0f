"""Templates of texts, and OpenAI's text tower in less time than its own forward takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from ovseg.errors import UserError

from .text_prefixes import encode_tree, in_order, prefix_tree

# texts that go through the encoder together
BATCH = 512


def text_templates(kind: str, predefined: Sequence[str]) -> tuple[str, ...]:
    """The templates of a kind, ``{}`` in each standing for the word.

    Args:
        kind: ``"vild"`` (14, of ViLD), ``"imagenet"`` (of CLIP's paper), ``"predefined"``, or
            ``"learned"``, which has none.
        predefined: what ``"predefined"`` means.

    Raises:
        UserError: for another kind, no template, or one without a place for the word.
    """
    if kind == "learned":
        return ("{}",)
    known = json.loads(Path(__file__).with_name("templates.json").read_text(encoding="utf-8"))
    if kind != "predefined" and kind not in known:
        raise UserError(
            f"MODEL.CLIP_ADAPTER.TEXT_TEMPLATES {kind!r} is unknown; choose from vild, imagenet, "
            "predefined and learned"
        )
    templates = tuple(predefined) if kind == "predefined" else tuple(known[kind])
    if not templates or any("{}" not in template for template in templates):
        raise UserError(
            "MODEL.CLIP_ADAPTER.PREDEFINED_PROMPT_TEMPLATES must hold at least one template, each "
            f"with {{}} for the word; it is {list(templates)}"
        )
    return templates


def encode_causal_texts(model: open_clip.CLIP, texts: Sequence[str]) -> Tensor:
    """Encode texts, at least one, what they share at their beginning only once.

    The text encoder must be causal and read at the end token, as OpenAI's is: what follows that
    token changes nothing.

    Returns:
        float32 (len(texts), embed_dim), not normalised.
    """
    tokens = open_clip.tokenize(list(texts), context_length=model.context_length)
    device = model.positional_embedding.device
    features = None
    for batch in in_order(tokens).split(BATCH):
        encoded = encode_tree(model, prefix_tree(tokens[batch]).to(device)).float()
        if features is None:
            features = encoded.new_empty((len(texts), encoded.shape[1]))
        features[batch.to(device)] = encoded
    if features is None:
        raise ValueError("no texts to encode")
    return features


def encode_tokens(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Encode one batch of token ids (B, 77), cut to its longest text; (B, embed_dim).

    For training: every text is computed by itself.
    """
    device = model.positional_embedding.device
    ends = tokens.argmax(dim=1)  # the end token has the largest id
    length = int(ends.max()) + 1
    tokens, ends = tokens[:, :length].to(device), ends.to(device)
    return encode_embedded(model, model.token_embedding(tokens), ends)


def encode_embedded(model: open_clip.CLIP, x: Tensor, ends: Tensor) -> Tensor:
    """Encode texts whose tokens are embedded, (B, L, width); they end at ``ends``, int64 (B,)."""
    length = x.shape[1]
    x = x + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    last = x[torch.arange(len(x), device=x.device), ends]
    return model.ln_final(last) @ model.text_projection
