"""Texts whose beginnings are computed once against open_clip's own encoder, text by text."""

from __future__ import annotations

import open_clip
import pytest
import torch
from tiny_world import CLIP_ARCHITECTURE

from ovseg.modeling.clip import build_untrained_clip, encode_texts, text_templates
from ovseg.modeling.clip import text as text_module
from ovseg.modeling.clip.text_prefixes import in_order, prefix_tree

WORDS = ["door", "door frame", "traffic light", "dog", "a", "Großmutter's 7 hats", "dog"]


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    torch.manual_seed(0)
    model = build_untrained_clip(CLIP_ARCHITECTURE, 0).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # weights of norms and biases would else be 1 and 0
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def test_the_tree_of_three_texts() -> None:
    # 1 begins and 9 ends a text; a text ends at its first 9
    tokens = torch.tensor([[1, 5, 6, 9, 0], [1, 4, 9, 0, 0], [1, 5, 9, 0, 0], [1, 5, 6, 9, 0]])
    order = in_order(tokens)
    assert order.tolist() == [1, 0, 3, 2]
    tree = prefix_tree(tokens[order])
    assert tree.tokens.tolist() == [1, 4, 9, 5, 6, 9, 9]
    assert tree.places.tolist() == [0, 1, 2, 1, 2, 3, 2]
    assert tree.rows.tolist() == [0, 0, 0, 1, 1, 1, 3]
    assert tree.ends.tolist() == [2, 5, 5, 6]
    nodes = [
        row[: int(end) + 1] for row, end in zip(tree.nodes.tolist(), (2, 3, 3, 2), strict=True)
    ]
    assert nodes == [[0, 1, 2], [0, 3, 4, 5], [0, 3, 4, 5], [0, 3, 6]]


@pytest.mark.parametrize("kind", ["vild", "imagenet"])
@pytest.mark.parametrize("batch", [7, 512])
@torch.no_grad()
def test_features_are_those_of_whole_texts(clip, monkeypatch, kind, batch) -> None:
    monkeypatch.setattr(text_module, "BATCH", batch)
    texts = [t.replace("{}", word) for word in WORDS for t in text_templates(kind, [])]
    texts += ["", "word " * 100, "word " * 99 + "end"]  # empty, and longer than the context
    expected = clip.encode_text(open_clip.tokenize(texts))
    torch.testing.assert_close(encode_texts(clip, texts), expected, atol=1e-5, rtol=0)
    one = encode_texts(clip, texts[3:4])
    torch.testing.assert_close(one, expected[3:4], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_beginning_costs_its_tokens_once(clip) -> None:
    seen = []
    handle = clip.transformer.resblocks[0].ln_1.register_forward_hook(
        lambda _, inputs, __: seen.append(len(inputs[0]))
    )
    encode_texts(clip, [f"a photo of a {word}" for word in ("cat", "dog", "owl")])
    handle.remove()
    assert seen == [5 + 3 * 2]  # the start and four words; then a word and the end each
