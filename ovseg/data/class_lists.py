"""Class lists, one json file each under ``ovseg/data/vocabularies``.

A file is a list in label order whose entries are names, ``[source id, name]`` pairs, or objects
with ``name`` and ``split``. Names keep their commas: ``"door, double door"`` is one class.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ovseg.errors import UserError

VOCABULARY_DIR = Path(__file__).resolve().parent / "vocabularies"


@dataclass(frozen=True)
class ClassList:
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

    def first(self, count: int) -> ClassList:
        """The class list of labels ``0 .. count - 1``."""
        groups = {
            group: tuple(label for label in labels if label < count)
            for group, labels in self.groups.items()
        }
        groups = {group: labels for group, labels in groups.items() if labels}
        return ClassList(self.names[:count], self.source_ids[:count], groups)


@lru_cache
def load_class_list(name: str) -> ClassList:
    """Read the class list ``name``, for example ``"pascal_voc_20"``.

    Raises:
        UserError: there is no such list.
    """
    path = VOCABULARY_DIR / f"{name}.json"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in VOCABULARY_DIR.glob("*.json")))
        raise UserError(f"no class list {name!r}; there are {names}")
    entries = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(entries[0], str):
        return ClassList(tuple(entries))
    if isinstance(entries[0], list):
        ids, names_ = zip(*entries, strict=True)
        return ClassList(names_, ids)
    groups: dict[str, list[int]] = {}
    for label, entry in enumerate(entries):
        groups.setdefault(entry["split"], []).append(label)
    return ClassList(
        tuple(entry["name"] for entry in entries),
        groups={group: tuple(labels) for group, labels in groups.items()},
    )
