"""One sentence, or just a name, for a scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovseg.data.stickerscenes import Concept

# the ViLD templates, so that a text encoder trained on these captions knows their words; listed
# here because processes that draw scenes need not import PyTorch
TEMPLATES = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)
JUST_A_NAME = 0.4
_VOWELS = "aeiou"
SYNONYM = 0.15
_ON = {"water": "in", "forest": "in front of", "painted wall": "in front of"}
_BACKGROUND = ("{} with {}", "{} with {} behind", "{} in front of {}")
_STUFF = ("{}", "only {}", "a view of {}", "nothing but {}")


def with_article(name: str, mass: bool = False) -> str:
    """``a cat``, ``an owl``; mass and plural nouns stay bare."""
    if mass or (name.endswith("s") and not name.endswith(("ss", "us"))):
        return name
    return f"{'an' if name[0] in _VOWELS and not name.startswith('uni') else 'a'} {name}"


def make_caption(
    rng: np.random.Generator, objects: Sequence[Concept], stuff: Sequence[Concept]
) -> str:
    """Describe a scene.

    Args:
        rng: source of the choices; the same state gives the same caption.
        objects: the things shown, the largest first; may be empty.
        stuff: the ground and, where there is one, the background.
    """
    if rng.random() < JUST_A_NAME:
        if objects:
            return _name_only(rng, objects[0])
        return _name_only(rng, stuff[int(rng.integers(len(stuff)))])
    grounds = [_word(rng, concept) for concept in stuff]
    if not objects:
        sentence = _STUFF[rng.integers(len(_STUFF))].format(_join(grounds))
    else:
        things = _join([with_article(_word(rng, c), c.mass) for c in objects])
        sentence = things
        if rng.random() < 0.8:
            preposition = _ON.get(stuff[0].name, "on")
            if len(stuff) == 1 and stuff[0].name.endswith(("sky", "wall", "fence")):
                preposition = "in front of"
            sentence = f"{things} {preposition} the {grounds[0]}"
            if len(stuff) == 2 and rng.random() < 0.6:
                pattern = _BACKGROUND[rng.integers(len(_BACKGROUND))]
                sentence = pattern.format(sentence, _a(stuff[1], grounds[1]))
    return f"{sentence}." if rng.random() < 0.2 else sentence


def _name_only(rng: np.random.Generator, concept: Concept) -> str:
    word = _word(rng, concept)
    if rng.random() < 0.35:
        return TEMPLATES[rng.integers(len(TEMPLATES))].format(word)
    return word if rng.random() < 0.7 else with_article(word, concept.mass)


def _word(rng: np.random.Generator, concept: Concept) -> str:
    if concept.synonyms and rng.random() < SYNONYM:
        return concept.synonyms[rng.integers(len(concept.synonyms))]
    return concept.name


def _a(concept: Concept, word: str) -> str:
    """Countable backgrounds take an article: ``a brick wall``, but ``water``."""
    if concept.name in ("water", "sand", "grass"):
        return word
    return with_article(word)


def _join(parts: Sequence[str]) -> str:
    if len(parts) <= 2:
        return " and ".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
