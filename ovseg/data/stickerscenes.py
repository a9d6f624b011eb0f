"""The names of StickerScenes: what is drawn, what it is called, and who may train on it.

They are read from ``ovseg/data/vocabularies/stickerscenes.json``, whose order is the label order:
126 seen objects, 18 stuff textures, 42 unseen objects. Training therefore uses the labels 0..143,
evaluation 0..185. The images are made by ``datasets/prepare_stickerscenes.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

VOCABULARY_FILE = Path(__file__).with_name("vocabularies") / "stickerscenes.json"


@dataclass(frozen=True)
class Concept:
    """One class: ``label`` is its place in the vocabulary, ``split`` is seen, unseen or stuff."""

    label: int
    name: str
    group: str
    split: str
    synonyms: tuple[str, ...]
    emoji: str | None
    mass: bool

    @property
    def is_stuff(self) -> bool:
        return self.split == "stuff"


@lru_cache(maxsize=1)
def load_concepts() -> tuple[Concept, ...]:
    """All 186 classes in label order."""
    rows = json.loads(VOCABULARY_FILE.read_text(encoding="utf-8"))
    return tuple(
        Concept(
            label=label,
            name=row["name"],
            group=row["group"],
            split=row["split"],
            synonyms=tuple(row["synonyms"]),
            emoji=row.get("emoji"),
            mass=row.get("mass", False),
        )
        for label, row in enumerate(rows)
    )


def object_concepts() -> tuple[Concept, ...]:
    """The 168 drawn things, seen and unseen, in label order."""
    return tuple(concept for concept in load_concepts() if not concept.is_stuff)


def stuff_concepts() -> tuple[Concept, ...]:
    """The 18 procedural textures, in label order."""
    return tuple(concept for concept in load_concepts() if concept.is_stuff)


def unseen_labels() -> frozenset[int]:
    """Labels that segmentation training and CLIP adaptation must not see."""
    return frozenset(c.label for c in load_concepts() if c.split == "unseen")
