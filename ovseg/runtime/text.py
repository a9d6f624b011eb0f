"""Features of words: from the manifest where they are there, else by the text graph."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np

from ovseg.errors import UserError
from ovseg.runtime.classify import normalise
from ovseg.runtime.folder import GRAPHS, MERGES, ExportFolder
from ovseg.runtime.tokenizer import Tokenizer

#: words kept besides the export's own and those of the latest request
MAX_WORDS = 32768
# texts that go through the encoder together
_BATCH = 64
# of a long word, the characters that a message shows
_SHOWN = 40

#: token ids int64 (N, L) -> features float32 (N, D), not normalised
EncodeTokens = Callable[[np.ndarray], np.ndarray]


class TextEncoder:
    """Features of words, which are kept as long as there is room."""

    def __init__(self, folder: ExportFolder, encode: EncodeTokens) -> None:
        """
        Args:
            folder: of the export.
            encode: runs the text graph.
        """
        self._folder = folder
        self._encode = encode
        self._tokenizer: Tokenizer | None = None
        self._own = dict(zip(folder.settings.words, folder.features(), strict=True))
        self._known: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def features(self, words: Sequence[str]) -> np.ndarray:
        """Unit features float32 (W, D) of W words.

        Raises:
            UserError: a word is longer than the context, or the folder has no text graph for it.
        """
        if not words:
            return np.zeros((0, len(self._folder.settings.no_object)), np.float32)
        wanted = [word for word in dict.fromkeys(words) if word not in self._own]
        with self._lock:
            new = [word for word in wanted if word not in self._known]
            if new:
                # rows of one array would keep all of it as long as one of them is kept
                rows = (row.copy() for row in self._word_features(new))
                self._known.update(zip(new, rows, strict=True))
            for word in wanted:
                self._known.move_to_end(word)
            known = {word: self._known[word] for word in wanted}
            while len(self._known) > max(MAX_WORDS, len(wanted)):
                self._known.popitem(last=False)
        return np.stack([self._own[word] if word in self._own else known[word] for word in words])

    def _word_features(self, words: Sequence[str]) -> np.ndarray:
        settings = self._folder.settings
        if GRAPHS["text"] not in self._folder:
            raise UserError(
                f"class name {words[0]!r}: this export knows the words of its manifest alone, "
                "since its CLIP has a tokenizer of its own; export it with this word among "
                "--class-names"
            )
        if self._tokenizer is None:
            self._tokenizer = Tokenizer(self._folder.path / MERGES)
        self._check_lengths(words, self._tokenizer)
        texts = [t.replace("{}", word) for word in words for t in settings.templates]
        features = normalise(self._encode_texts(texts, self._tokenizer))
        means = features.reshape(len(words), len(settings.templates), -1).mean(axis=1)
        return normalise(means)

    def _encode_texts(self, texts: Sequence[str], tokenizer: Tokenizer) -> np.ndarray:
        """Short texts with short ones, each batch cut to its longest, which changes nothing."""
        tokens = tokenizer(texts, self._folder.settings.context_length)
        ends = tokens.argmax(axis=1)  # the end token has the largest id
        features = np.empty((len(texts), len(self._folder.settings.no_object)), np.float32)
        order = np.argsort(ends, kind="stable")
        for first in range(0, len(texts), _BATCH):
            batch = order[first : first + _BATCH]
            features[batch] = self._encode(tokens[batch, : ends[batch].max() + 1])
        return features

    def _check_lengths(self, words: Sequence[str], tokenizer: Tokenizer) -> None:
        settings = self._folder.settings
        longest = max(settings.templates, key=len)
        for word in words:
            text = longest.replace("{}", word)
            # a token is a byte at least, so most texts need not be looked at
            if len(text.encode()) <= settings.context_length - 2:
                continue
            if tokenizer.length(text) > settings.context_length:
                shown = word if len(word) <= _SHOWN else f"{word[:_SHOWN]}..."
                raise UserError(
                    f"class name {shown!r} ({len(word)} characters) is longer than CLIP reads, "
                    f"{settings.context_length} tokens with its template; give a shorter name"
                )
