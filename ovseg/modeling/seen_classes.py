"""Which classes the segmentation network was trained on, by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from detectron2.data import MetadataCatalog

from ovseg.errors import UserError
from ovseg.vocabulary import Vocabulary

# what COCO-Stuff adds to a name to tell it from another class's
_ENDINGS = ("-other", "-stuff")


def training_classes(names: Sequence[str], key: str = "DATASETS.TRAIN") -> list[tuple[str, ...]]:
    """The classes of registered data sets: each its name and synonyms, a name once.

    Args:
        names: of the data sets.
        key: the config key that names them, for messages.

    Raises:
        UserError: there are none, or a data set's are not known.
    """
    if not names:
        raise UserError(f"{key} is empty; name the data sets whose classes are meant")
    classes: dict[str, dict[str, None]] = {}
    for name in names:
        metadata = MetadataCatalog.get(name)
        entries = metadata.get("class_words") or metadata.get("stuff_classes")
        if not entries:
            raise UserError(
                f"{key}: the classes of {name!r} are not known; name its yaml in DATASETS.CUSTOM"
            )
        for entry in entries:
            words = (entry,) if isinstance(entry, str) else tuple(entry)
            words = tuple(word.strip() for word in words)  # detectron2 has "window "
            classes.setdefault(words[0], {}).update(dict.fromkeys(words))
    return [tuple(words) for words in classes.values()]


class SeenClasses:
    """The names of the classes of a training.

    A class is seen when any of its synonyms is one of these names. Case does not matter, nor do
    COCO-Stuff's endings "-other" and "-stuff"; what stands between commas is a synonym.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """``names``: of all classes, with their synonyms."""
        self._words = {word for name in names for word in compared_words(name)}

    @classmethod
    def of_datasets(cls, names: Sequence[str]) -> SeenClasses:
        """The classes of registered data sets; see :func:`training_classes`."""
        return cls(word for words in training_classes(names) for word in words)

    def has(self, words: Iterable[str]) -> bool:
        """Whether a class of these words is seen."""
        return any(each in self._words for word in words for each in compared_words(word))

    def of_words(self, vocabulary: Vocabulary) -> list[bool]:
        """For each of the W that compete whether its class is seen.

        "others" and the background, which are no class, count as seen.
        """
        seen = [self.has(words) for words in vocabulary.words_of_class]
        return [label < 0 or seen[label] for label in vocabulary.class_of_word]


def compared_words(name: str) -> set[str]:
    """The words of a name in the form that they are compared in, see :class:`SeenClasses`."""
    words = {part.strip().casefold() for part in name.split(",")} - {""}
    for ending in _ENDINGS:
        words = {word.removesuffix(ending) for word in words}
    return words
