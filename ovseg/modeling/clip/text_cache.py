"""Text features that were computed before, bounded and safe to share among threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor

#: words kept besides those of the latest request; of 768 numbers each they take 100 MB
MAX_WORDS = 32768


class TextCache:
    """Features of words, as long as the encoder stays the same.

    A copy starts empty.
    """

    def __init__(self, max_words: int = MAX_WORDS) -> None:
        """Keep the ``max_words`` words that were asked for last."""
        self._max_words = max_words
        self._features: OrderedDict[str, Tensor] = OrderedDict()
        self._encoder: Hashable = None
        self._lock = Lock()

    def __len__(self) -> int:
        """The number of words that are kept."""
        return len(self._features)

    def clear(self) -> None:
        """Forget all words."""
        with self._lock:
            self._features.clear()

    def features(
        self,
        words: Sequence[str],
        encode: Callable[[list[str]], Tensor],
        encoder: Hashable,
    ) -> Tensor:
        """Features (W, D) of W words, at least one.

        Args:
            words: any, repeated ones too.
            encode: gives the features (N, D) of the words that are not known.
            encoder: changes when ``encode`` would give other features; then all are forgotten.
        """
        with self._lock:
            if encoder != self._encoder:
                self._features.clear()
                self._encoder = encoder
            wanted = dict.fromkeys(words)
            new = [word for word in wanted if word not in self._features]
            if new:
                # rows of one tensor would keep all of it as long as one of them is kept
                rows = (row.clone() for row in encode(new))
                self._features.update(zip(new, rows, strict=True))
            for word in wanted:
                self._features.move_to_end(word)
            result = torch.stack([self._features[word] for word in words])
            while len(self._features) > max(self._max_words, len(wanted)):
                self._features.popitem(last=False)
            return result

    def __deepcopy__(self, memo: dict[int, Any]) -> TextCache:
        return TextCache(self._max_words)

    def __reduce__(self) -> tuple[type[TextCache], tuple[int]]:
        return TextCache, (self._max_words,)
