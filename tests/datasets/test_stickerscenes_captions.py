"""The captions of StickerScenes."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ovseg.data.stickerscenes import load_concepts
from ovseg.modeling.clip import text_templates
from stickerscenes.captions import TEMPLATES, make_caption, with_article


def test_articles():
    cases = {"cat": "a cat", "owl": "an owl", "unicorn": "a unicorn", "glasses": "glasses",
             "wine glass": "a wine glass", "cactus": "a cactus"}  # fmt: skip
    assert {name: with_article(name) for name in cases} == cases
    assert with_article("corn", mass=True) == "corn"


def concept(name):
    return next(c for c in load_concepts() if c.name == name)


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


def test_templates_are_those_of_vild():
    assert text_templates("vild", []) == TEMPLATES
