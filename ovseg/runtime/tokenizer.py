"""CLIP's tokenizer: byte pair encoding of lower-case words ("Neural Machine Translation of Rare
Words with Subword Units", ACL 2016), with the merges that OpenAI published.

It gives the ids of open_clip's ``tokenize`` without the packages ``regex`` and ``ftfy``. Of what
ftfy mends before, this does the plain part: Unicode's composed form, straight quotes, ordinary
width, ligatures, no control characters. Texts that were decoded wrongly stay as they are.
"""

from __future__ import annotations

import gzip
import html
import os
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

# merges beyond these, and the ids of 256 bytes, 256 bytes at a word's end and 2 marks, make 49 408
_MERGES = 49152 - 256 - 2
_MARKS = ("<start_of_text>", "<end_of_text>")
_ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_END = "</w>"
_WORDS_KEPT = 1 << 16
_REPLACED = str.maketrans(
    dict.fromkeys("ʼ‘’‚‛", "'")
    | dict.fromkeys("“”„‟", '"')
    | {
        "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ſt", "ﬆ": "st",
        "Ĳ": "IJ", "ĳ": "ij", "Ŀ": "L·", "ŀ": "l·", "ŉ": "'n", "Ǆ": "DŽ", "ǅ": "Dž", "ǆ": "dž",
        "Ǉ": "LJ", "ǈ": "Lj", "ǉ": "lj", "Ǌ": "NJ", "ǋ": "Nj", "ǌ": "nj", "Ǳ": "DZ", "ǲ": "Dz",
        "ǳ": "dz",
    }
)  # fmt: skip


class Tokenizer:
    """From texts to token ids."""

    def __init__(self, merges: str | os.PathLike[str]) -> None:
        """``merges``: the file of the merges, gzipped."""
        lines = gzip.decompress(Path(merges).read_bytes()).decode("utf-8").split("\n")
        pairs = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
        letters = _letters_of_bytes()
        tokens = [*letters.values(), *(letter + _END for letter in letters.values())]
        tokens += ["".join(pair) for pair in pairs] + list(_MARKS)
        self._letters = letters
        self._ids = {token: place for place, token in enumerate(tokens)}
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._encode_word = lru_cache(_WORDS_KEPT)(self._merged)

    def encode(self, text: str) -> list[int]:
        """The ids of a text of any length, without start and end."""
        words = _words(_cleaned(text))
        return [token for word in words for token in self._encode_word(word)]

    def __call__(self, texts: Sequence[str], context_length: int = 77) -> np.ndarray:
        """Ids int64 (N, context_length) of N texts: start, text, end, zeros; long ones are cut."""
        start, end = (self._ids[mark] for mark in _MARKS)
        result = np.zeros((len(texts), context_length), np.int64)
        for row, text in zip(result, texts, strict=True):
            tokens = [start, *self.encode(text)[: context_length - 2], end]
            row[: len(tokens)] = tokens
        return result

    def length(self, text: str) -> int:
        """The number of tokens of a text, start and end among them."""
        return len(self.encode(text)) + 2

    def _merged(self, word: str) -> tuple[int, ...]:
        """Merge the letters of a word, the pair that was learned first first."""
        if word in _MARKS:
            return (self._ids[word],)
        parts = [self._letters[byte] for byte in word.encode("utf-8")]
        parts[-1] += _END
        while len(parts) > 1:
            first = min(pairwise(parts), key=lambda pair: self._ranks.get(pair, _MERGES))
            if first not in self._ranks:
                break
            joined, place = [], 0
            while place < len(parts):
                both = tuple(parts[place : place + 2]) == first
                joined.append("".join(first) if both else parts[place])
                place += 1 + both
            parts = joined
        return tuple(self._ids[part] for part in parts)


def _letters_of_bytes() -> dict[int, str]:
    """A printable letter for each byte: its own character, or where that is none one above 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }


def _cleaned(text: str) -> str:
    """Plain lower-case text with single blanks."""
    if not text.isascii():
        text = text.translate(_REPLACED)
        text = "".join(_usual_width(letter) for letter in text)
        text = unicodedata.normalize("NFC", text)
    text = html.unescape(html.unescape(text))
    text = "".join(letter for letter in text if letter.isspace() or not _is_control(letter))
    return " ".join(text.split()).lower()


def _is_control(letter: str) -> bool:
    return letter < " " or letter in "\x7f\ufeff\u206a\u206b\u206c\u206d\u206e\u206f"


def _usual_width(letter: str) -> str:
    """Latin letters of full width, and others of half width, as they are written elsewhere."""
    if "\uff01" <= letter <= "\uffef" or letter == "\u3000":
        return unicodedata.normalize("NFKC", letter)
    return letter


def _words(text: str) -> list[str]:
    """Runs of letters, single digits, endings as 's, and runs of all else but blanks."""
    words, place = [], 0
    while place < len(text):
        if text[place] == " ":
            place += 1
            continue
        found = next((m for m in (*_MARKS, *_ENDINGS) if text.startswith(m, place)), "")
        kind = _kind(text[place])
        end = place + (len(found) or 1)
        if not found and kind != "N":
            while end < len(text) and text[end] != " " and _kind(text[end]) == kind:
                end += 1
        words.append(text[place:end])
        place = end
    return words


def _kind(letter: str) -> str:
    """ "L" of letters, "N" of numerals, "" of all else."""
    category = unicodedata.category(letter)[0]
    return category if category in "LN" else ""
