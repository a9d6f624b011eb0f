"""Class names as users give them, and class lists, one json file each under ``vocabularies``.

A file is a list in label order whose entries are names, ``[source id, name]`` pairs, or objects
with ``name`` and ``split``. Names keep their commas: ``"door, double door"`` is one class.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ovseg.errors import UserError

VOCABULARY_DIR = Path(__file__).resolve().parent / "vocabularies"


@dataclass(frozen=True)
class Vocabulary:
    """Class names in label order.

    Attributes:
        names: the name of label ``i`` at place ``i``.
        source_ids: for lists numbered elsewhere (COCO category ids, ADE20K object indices) the
            number of each class there; else empty.
        groups: for lists with splits, the labels of each (``"seen"``, ``"unseen"``, ``"stuff"``).
    """

    names: tuple[str, ...]
    source_ids: tuple[int, ...] = ()
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def first(self, count: int) -> Vocabulary:
        """The vocabulary of labels ``0 .. count - 1``."""
        groups = {
            group: tuple(label for label in labels if label < count)
            for group, labels in self.groups.items()
        }
        groups = {group: labels for group, labels in groups.items() if labels}
        return Vocabulary(self.names[:count], self.source_ids[:count], groups)


@lru_cache
def load_vocabulary(name: str) -> Vocabulary:
    """Read the class list ``name``, for example ``"pascal_voc_20"``.

    Raises:
        UserError: there is no such list.
    """
    path = VOCABULARY_DIR / f"{name}.json"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in VOCABULARY_DIR.glob("*.json")))
        raise UserError(f"no vocabulary {name!r}; there are {names}")
    entries = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(entries[0], str):
        return Vocabulary(tuple(entries))
    if isinstance(entries[0], list):
        ids, names_ = zip(*entries, strict=True)
        return Vocabulary(names_, ids)
    groups: dict[str, list[int]] = {}
    for label, entry in enumerate(entries):
        groups.setdefault(entry["split"], []).append(label)
    return Vocabulary(
        tuple(entry["name"] for entry in entries),
        groups={group: tuple(labels) for group, labels in groups.items()},
    )


def clean_class_names(class_names: Sequence[str]) -> list[str]:
    """Strip the words and check that they can be told apart.

    Runs of white space become one blank. Case is kept, but words that differ in nothing else count
    as the same, since CLIP reads lower case only.

    Raises:
        UserError: no word, an empty word, or the same word twice.
    """
    if isinstance(class_names, str):
        raise UserError(f"class names must be a list of words, not the text {class_names!r}")
    words = [" ".join(name.split()) for name in class_names]
    if not words:
        raise UserError(
            "no class names; give at least one word, for example --class-names dog grass"
        )
    seen: dict[str, int] = {}
    for position, word in enumerate(words, start=1):
        if not word:
            raise UserError(f"class name {position} of {len(words)} is empty; leave it out")
        first = seen.setdefault(word.casefold(), position)
        if first != position:
            raise UserError(
                f"class name {word!r} is given twice (positions {first} and {position}); "
                "give every word once (case makes no difference)"
            )
    return words
