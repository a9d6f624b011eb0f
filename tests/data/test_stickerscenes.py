"""The names of StickerScenes."""

from __future__ import annotations

import json
from collections import Counter

from ovseg.data.stickerscenes import (
    VOCABULARY_FILE,
    load_concepts,
    object_concepts,
    stuff_concepts,
    unseen_labels,
)


def test_labels_are_seen_then_stuff_then_unseen():
    splits = [concept.split for concept in load_concepts()]
    assert splits == ["seen"] * 126 + ["stuff"] * 18 + ["unseen"] * 42
    assert [concept.label for concept in load_concepts()] == list(range(186))
    assert unseen_labels() == set(range(144, 186))


def test_no_word_means_two_things():
    words = [w for c in load_concepts() for w in (c.name, *c.synonyms)]
    assert [word for word, count in Counter(words).items() if count > 1] == []
    assert all(word == word.strip().lower() and word for word in words)


def test_every_object_has_a_code_point():
    assert len({concept.emoji for concept in object_concepts()}) == 168
    assert all(int(part, 16) for c in object_concepts() for part in str(c.emoji).split("-"))
    assert len(stuff_concepts()) == 18
    assert all(concept.emoji is None for concept in stuff_concepts())


def test_unseen_names_are_spread_over_the_groups():
    groups: dict[str, list[str]] = {}
    for concept in object_concepts():
        groups.setdefault(concept.group, []).append(concept.split)
    for group, splits in groups.items():
        share = splits.count("unseen") / len(splits)
        assert share <= 0.5, group
        if len(splits) >= 4:
            assert 0.1 <= share <= 0.45, group


def test_file_is_plain_json_in_label_order():
    rows = json.loads(VOCABULARY_FILE.read_text(encoding="utf-8"))
    assert [row["name"] for row in rows] == [concept.name for concept in load_concepts()]
