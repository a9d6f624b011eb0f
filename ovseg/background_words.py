"""General words for pixels that belong to none of a user's classes (``docs/reject.md``)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path


def background_words(words: Iterable[str]) -> list[str]:
    """General words that mean none of a user's words.

    Left out is a general word that is a user's word; that has all parts of one or the other way
    round, as "wall" beside "brick wall"; that is a kind of which the user names a member, as
    "animal" beside "dog"; or a member of a kind that the user names, as "dog" beside "animal".
    Case and a plural's s make no difference.

    Args:
        words: of the user.
    """
    kinds = _general_words()
    parts = {word: _parts(word) for kind, members in kinds.items() for word in (kind, *members)}
    given = [part for part in map(_parts, words) if part]
    meant = {word for word in parts if any(part <= parts[word] for part in given)}
    named = meant | {word for word in parts if any(parts[word] <= part for part in given)}
    for kind, members in kinds.items():
        if named & set(members):
            named.add(kind)
        if kind in meant:
            named.update(members)
    return [word for word in parts if word and word not in named]


@lru_cache
def _general_words() -> dict[str, tuple[str, ...]]:
    """Members by kind; those of "" are of no kind."""
    text = Path(__file__).with_name("background_words.json").read_text(encoding="utf-8")
    return {kind: tuple(members) for kind, members in json.loads(text).items()}


def _parts(word: str) -> frozenset[str]:
    return frozenset(part.removesuffix("s") for part in re.findall(r"\w+", word.casefold()))
