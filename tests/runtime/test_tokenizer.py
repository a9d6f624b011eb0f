"""The runtime's tokenizer against open_clip's."""

from __future__ import annotations

import random

import ftfy
import numpy as np
import open_clip
import open_clip.tokenizer
import pytest

from ovseg.data.class_lists import load_class_list
from ovseg.modeling.clip import text_templates
from ovseg.runtime.tokenizer import Tokenizer

PIECES = (  # noqa: SIM905  a list would be a page long
    "a b c z A Q 0 7 42 1999 ' ’ ‘ “ ” \" - — … ! ? . , ; : / \\ & &amp; &lt;b&gt; # @ % "
    "$ € ° ½ ² Ⅷ 's 's 't 're 've 'm 'll 'd n't O'Neill l'été é ü ñ Å ß ø Ж щ λ Ω 中 文字 "
    "日本 한국 ไทย हिन्दी العربية 😀 👍🏽 🏳️‍🌈 ﬁ ﬂ ﬃ Ｆｕｌｌ ｗｉｄｅ！ ｶﾀｶﾅ e\u0301 İ \u200b \xad "
    "\ufeff \x07 \u2028 <start_of_text> <end_of_text> <b> </w> ĳ ŉ ǆ x\xa0y"
).split(" ")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(open_clip.tokenizer.default_bpe())


def generated(count: int) -> list[str]:
    """Texts of words, templates, letters of many scripts, punctuation, marks and odd blanks."""
    rng = random.Random(0)
    lists = ("ade20k_full_847", "coco_stuff_171", "pascal_context_459", "stickerscenes")
    words = [name for source in lists for name in load_class_list(source).names]
    templates = text_templates("imagenet", [])
    texts = []
    for number in range(count):
        if number % 2:
            texts.append(rng.choice(templates).replace("{}", rng.choice(words)))
        else:
            pieces = [rng.choice(PIECES + words[:40]) for _ in range(rng.randint(0, 12))]
            texts.append("".join(piece + rng.choice(["", "", " ", "  ", "\t"]) for piece in pieces))
    return texts


def test_ten_thousand_texts_give_the_tokens_of_open_clip(tokenizer: Tokenizer) -> None:
    # ftfy also takes a few odd neighbours, as "Å²", for a letter that was decoded wrongly
    texts = [text for text in generated(10_100) if ftfy.fix_encoding(text) == text]
    assert len(texts) >= 10_000
    assert len(set(texts)) > 8_000
    found, expected = tokenizer(texts), open_clip.tokenize(texts).numpy()
    different = np.flatnonzero((found != expected).any(axis=1))
    assert [texts[place] for place in different[:10]] == []


def test_long_texts_are_cut_and_end(tokenizer: Tokenizer) -> None:
    long = "a very long photo " * 40
    assert (tokenizer([long], 20) == open_clip.tokenize([long], 20).numpy()).all()
    assert tokenizer([""]).shape == (1, 77)
    assert tokenizer([]).shape == (0, 77)
    assert tokenizer.length("a photo") == 4
