"""The names of StickerScenes, and the captions made of them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np

from ovseg.data.stickerscenes.captions import TEMPLATES, make_caption
from ovseg.data.stickerscenes.textures import PAINTERS
from ovseg.data.stickerscenes.vocabulary import (
    VOCABULARY_FILE,
    load_vocabulary,
    object_concepts,
    stuff_concepts,
    unseen_labels,
    with_article,
)


def test_labels_are_seen_then_stuff_then_unseen():
    splits = [concept.split for concept in load_vocabulary()]
    assert splits == ["seen"] * 126 + ["stuff"] * 18 + ["unseen"] * 42
    assert [concept.label for concept in load_vocabulary()] == list(range(186))
    assert unseen_labels() == set(range(144, 186))


def test_no_word_means_two_things():
    words = [w for c in load_vocabulary() for w in (c.name, *c.synonyms)]
    assert [word for word, count in Counter(words).items() if count > 1] == []
    assert all(word == word.strip().lower() and word for word in words)


def test_every_object_has_a_code_point_and_every_stuff_a_painter():
    assert len({concept.emoji for concept in object_concepts()}) == 168
    assert all(int(part, 16) for c in object_concepts() for part in str(c.emoji).split("-"))
    assert {concept.name for concept in stuff_concepts()} == set(PAINTERS)


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
    assert [row["name"] for row in rows] == [concept.name for concept in load_vocabulary()]


def test_articles():
    cases = {"cat": "a cat", "owl": "an owl", "unicorn": "a unicorn", "glasses": "glasses",
             "wine glass": "a wine glass", "cactus": "a cactus"}  # fmt: skip
    assert {name: with_article(name) for name in cases} == cases
    assert with_article("corn", mass=True) == "corn"


def concept(name):
    return next(c for c in load_vocabulary() if c.name == name)


def test_captions_name_what_is_there():
    rng = np.random.default_rng(0)
    objects, stuff = [concept("parrot"), concept("owl")], [concept("grass"), concept("blue sky")]
    captions = [make_caption(rng, objects, stuff) for _ in range(600)]
    assert "a parrot and an owl on the grass with a blue sky" in captions
    assert "parrot" in captions
    # without a sentence about the picture, it is named after its largest thing
    just_a_name = [c for c in captions if "parrot" in c and "owl" not in c]
    assert 0.33 < len(just_a_name) / len(captions) < 0.47
    assert all("parrot" in c for c in captions)


def test_captions_of_stuff_and_synonyms():
    rng = np.random.default_rng(0)
    captions = {make_caption(rng, [], [concept("grass")]) for _ in range(300)}
    assert {"grass", "lawn", "meadow", "nothing but grass"} <= captions
    words = Counter(
        make_caption(rng, [concept("car")], [concept("road")]).count("automobile")
        for _ in range(1000)
    )
    assert 0.1 < words[1] / 1000 < 0.2


def test_every_template_is_used():
    rng = np.random.default_rng(0)
    captions = {make_caption(rng, [concept("drum")], [concept("carpet")]) for _ in range(2000)}
    assert {template.format("drum") for template in TEMPLATES} <= captions
