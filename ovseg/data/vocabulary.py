"""Class names as users give them: a list, a mapping, a file, or the name of a built-in list."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovseg.data.class_lists import load_class_list
from ovseg.errors import UserError
from ovseg.utils.io import parse_json, user_path
from ovseg.vocabulary import Vocabulary

#: what :func:`read_vocabulary` takes
ClassNames = (
    str
    | os.PathLike[str]
    | Sequence[str | Sequence[str]]
    | Mapping[str, str | Sequence[str]]
    | Vocabulary
)

#: separates the synonyms of a class; names contain commas
SEPARATOR = "|"

# name -> class list; that of ADE20K-150 is detectron2's
_BUILT_IN = {
    "ade20k-150": "",
    "ade20k-847": "ade20k_full_847",
    "coco-stuff-171": "coco_stuff_171",
    "pascal-context-59": "pascal_context_59",
    "pascal-context-459": "pascal_context_459",
    "pascal-voc-20": "pascal_voc_20",
    "stickerscenes": "stickerscenes",
}
BUILT_IN_NAMES = tuple(_BUILT_IN)


def read_vocabulary(class_names: ClassNames) -> Vocabulary:
    """The vocabulary that a user gives.

    Args:
        class_names: a list whose entries are names, ``"sofa | couch"`` for a class with synonyms,
            or lists of a name and its synonyms; a mapping from the name of a class to the words
            that it is found by; the path of a text file with a class a line, or of a JSON file with
            such a list or mapping; or one of :data:`BUILT_IN_NAMES`.

    Returns:
        Words with single blanks. Case is kept, but words that differ in nothing else count as the
        same, since CLIP reads lower case only.

    Raises:
        UserError: no class, an empty word, a word that is there twice, a set, whose order would be
            another each time, or a file that is missing or cannot be read.
    """
    if isinstance(class_names, Vocabulary):
        return class_names
    if isinstance(class_names, str | os.PathLike):
        return _from_name(class_names)
    if isinstance(class_names, set | frozenset):
        raise UserError("class names are a set, which has no order; give a list")
    if not isinstance(class_names, Iterable):
        raise UserError(
            f"class names {class_names!r} are no list; give one, such as ['dog', 'grass']"
        )
    return _from_entries(class_names)


def built_in_vocabulary(name: str) -> Vocabulary:
    """One of :data:`BUILT_IN_NAMES`, in label order."""
    if _BUILT_IN[name]:
        return Vocabulary.of(load_class_list(_BUILT_IN[name]).names)
    from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES

    return Vocabulary.of(ADE20K_SEM_SEG_CATEGORIES)


def thing_names(class_names: ClassNames) -> tuple[str, ...] | None:
    """The things of a built-in list that tells them from stuff; None for all other class names."""
    source = _BUILT_IN.get(class_names) if isinstance(class_names, str) else None
    classes = load_class_list(source) if source else None
    if classes is None or "stuff" not in classes.groups:
        return None
    stuff = classes.groups["stuff"]
    return tuple(name for label, name in enumerate(classes.names) if label not in stuff)


def _from_name(name: str | os.PathLike[str]) -> Vocabulary:
    path = user_path(name)
    if os.path.isfile(path):  # pathlib raises where the name is too long for one
        return _from_file(path)
    if name in _BUILT_IN:
        return built_in_vocabulary(str(name))
    close = difflib.get_close_matches(str(name), _BUILT_IN, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(_BUILT_IN)}."
    raise UserError(
        f"vocabulary {str(name)!r} is neither a file nor a built-in list; {hint} "
        "Several class names are given as a list of words"
    )


def _from_file(path: Path) -> Vocabulary:
    try:
        text = path.read_text(encoding="utf-8-sig")
        content: Any = parse_json(text) if path.suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"vocabulary {str(path)!r} cannot be read ({reason}); "
            "write a class a line, or JSON, in UTF-8"
        ) from error
    if isinstance(content, list) and path.suffix.lower() != ".json":
        content = [line for line in content if line.strip()]
    if not isinstance(content, list | dict):
        raise UserError(
            f"vocabulary {str(path)!r} holds neither a list nor a mapping of names; "
            "write [name, ...] or {name: [word, ...], ...}"
        )
    try:
        return _from_entries(content)
    except UserError as error:
        raise UserError(f"vocabulary {str(path)!r}: {error}") from error


def _from_entries(
    entries: Iterable[str | Sequence[str]] | Mapping[str, str | Sequence[str]],
) -> Vocabulary:
    if isinstance(entries, Mapping):
        names = [_clean(name) for name in entries]
        words = [_words(entry) for entry in entries.values()]
    else:
        words = [_words(entry) for entry in entries]
        names = [entry[0] if entry else "" for entry in words]
    if not words:
        raise UserError(
            "no class names; give at least one word, for example --class-names dog grass"
        )
    _check_words(names, words)
    return Vocabulary(tuple(names), tuple(tuple(entry) for entry in words))


def _words(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [_clean(word) for word in entry.split(SEPARATOR)]
    if not isinstance(entry, Sequence):
        raise UserError(f"class name {entry!r} is no text; write it in quotes")
    return [_clean(word) for word in entry]


def _clean(word: Any) -> str:
    if not isinstance(word, str):
        raise UserError(f"class name {word!r} is no text; write it in quotes")
    if any("\ud800" <= letter <= "\udfff" for letter in word):  # bytes that were no UTF-8
        raise UserError(f"class name {word!r} is no Unicode; write it in UTF-8")
    word = " ".join(word.split())
    if any(unicodedata.category(letter) == "Cc" for letter in word):
        raise UserError(f"class name {word!r} has a control character; leave it out")
    return word


def _check_words(names: Sequence[str], words: Sequence[Sequence[str]]) -> None:
    seen: dict[str, int] = {}
    for position, (name, entry) in enumerate(zip(names, words, strict=True), start=1):
        if not name or not entry or not all(entry):
            raise UserError(f"class name {position} of {len(words)} is empty; leave it out")
        folded = [word.casefold() for word in entry]
        for word, same in zip(entry, folded, strict=True):
            first = seen.setdefault(same, position)
            if first != position or folded.count(same) > 1:
                raise UserError(
                    f"class name {word!r} is given twice (positions {first} and {position}); "
                    "give every word once (case makes no difference)"
                )
    if len({name.casefold() for name in names}) < len(names):
        raise UserError("two classes have the same name; give every class its own")
