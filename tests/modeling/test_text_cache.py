"""Features are computed once, kept within bounds, and forgotten with their encoder."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ovseg.modeling.clip.text_cache import TextCache


class Encoder:
    """Counts the words that it encodes; a word's feature is its length and its first letter."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, words: list[str]) -> Tensor:
        self.asked += words
        return torch.tensor([[len(word), ord(word[0])] for word in words])


def test_words_are_encoded_once_and_in_order() -> None:
    cache, encode = TextCache(), Encoder()
    first = cache.features(["cat", "owl", "cat"], encode, 1)
    assert first.tolist() == [[3, ord("c")], [3, ord("o")], [3, ord("c")]]
    assert encode.asked == ["cat", "owl"]
    cache.features(["owl", "horse"], encode, 1)
    assert encode.asked == ["cat", "owl", "horse"]
    cache.features(["cat"], encode, 2)  # another encoder
    assert encode.asked[3:] == ["cat"]
    assert len(cache) == 1
    cache.clear()
    assert len(cache) == 0


def test_the_words_that_were_asked_for_last_are_kept() -> None:
    cache, encode = TextCache(max_words=3), Encoder()
    cache.features(["a", "b", "c"], encode, 1)
    cache.features(["a", "d"], encode, 1)  # b goes: c and a were asked for after it
    assert len(cache) == 3
    encode.asked.clear()
    cache.features(["c", "a", "d"], encode, 1)
    assert encode.asked == []
    # a request larger than the bound is kept whole, or each image would encode it again
    many = [f"{place} word" for place in range(10)]
    cache.features(many, encode, 1)
    encode.asked.clear()
    assert len(cache.features(many, encode, 1)) == 10
    assert encode.asked == []


def test_ever_new_words_stay_within_the_bound() -> None:
    cache, encode = TextCache(max_words=50), Encoder()
    for start in range(0, 2000, 7):
        words = [f"{number} words" for number in range(start, start + 20)]
        assert cache.features(words, encode, 1)[:, 0].tolist() == [len(word) for word in words]
        assert len(cache) <= 50


def test_a_word_that_stays_does_not_keep_those_it_came_with() -> None:
    cache = TextCache(max_words=5)
    for start in range(0, 100, 10):
        words = [f"{number} words" for number in range(start, start + 10)]
        features = cache.features([*words, "cat"], Encoder(), 1)
    kept = {feature.untyped_storage().data_ptr(): feature.untyped_storage().nbytes()
            for feature in cache._features.values()}  # fmt: skip
    assert len(cache) == 11
    assert sum(kept.values()) == features.numel() * features.element_size()


def test_threads_share_it() -> None:
    cache, encode = TextCache(max_words=30), Encoder()

    def ask(start: int) -> bool:
        words = [f"{number} words" for number in range(start % 40, start % 40 + 20)]
        return cache.features(words, encode, 1)[:, 0].tolist() == [len(word) for word in words]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(400)))


def test_a_copy_starts_empty() -> None:
    cache = TextCache(max_words=5)
    cache.features(["cat"], Encoder(), 1)
    assert len(copy.deepcopy(cache)) == 0
    assert len(cache) == 1
