"""The classes to look for: names, synonyms, and what a single class competes with.

PyTorch is imported when tensors come, so that command lines can check class names without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ovseg.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

#: competes with a class that is alone, since classification is by contrast
OTHERS = "others"
# labels that are looked up at once
_PART = 2**22


@dataclass(frozen=True)
class Vocabulary:
    """The classes to look for, each by its name and maybe by synonyms.

    All words compete, and a pixel has the class of its best word. A single class competes with the
    internal word "others"; it stands for no class, and pixels that it wins have none. With
    ``reject`` it is the background that competes instead, with any number of classes: whatever is
    none of them, see :mod:`ovseg.modeling.reject`.

    Attributes:
        names: of the C classes.
        words_of_class: of each class the words that it is found by, mostly its name first.
        reject: how readily pixels get no class, 0..1; 0: there is no background.
    """

    names: tuple[str, ...]
    words_of_class: tuple[tuple[str, ...], ...]
    reject: float = 0.0

    @classmethod
    def of(cls, class_names: Iterable[str | Sequence[str]]) -> Vocabulary:
        """The vocabulary of class names; a class with synonyms is a list, its name first."""
        entries = ((entry,) if isinstance(entry, str) else entry for entry in class_names)
        words = tuple(tuple(word.strip() for word in entry) for entry in entries)
        return cls(tuple(entry[0] for entry in words), words)

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.names)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of all classes, in their order, and maybe "others"."""
        words = tuple(word for words in self.words_of_class for word in words)
        return (*words, OTHERS) if len(self) == 1 and not self.reject else words

    @cached_property
    def class_of_word(self) -> tuple[int, ...]:
        """The class of each of the W that compete: the words, -1 for "others" or background."""
        places = tuple(place for place, words in enumerate(self.words_of_class) for _ in words)
        return (*places, -1) if len(self) == 1 or self.reject else places

    def things(self, names: Iterable[str] | None) -> frozenset[int]:
        """The classes of the names that are things; all of them without names.

        Raises:
            UserError: a name is none of the classes'.
        """
        if names is None:
            return frozenset(range(len(self)))
        label_of = {name: label for label, name in enumerate(self.names)}
        given = tuple(names) if isinstance(names, Iterable) else (names,)
        if isinstance(names, str) or not all(isinstance(name, str) for name in given):
            raise UserError(f"thing_classes {names!r}: give a list of class names")
        wanted = tuple(" ".join(name.split()) for name in given)  # as class names are read
        for name in wanted:
            if name not in label_of:
                raise UserError(
                    f"thing_classes: {name!r} is none of the class names; give some of "
                    f"{', '.join(self.names[:5])}{', ...' if len(self) > 5 else ''}"
                )
        return frozenset(label_of[name] for name in wanted)

    def best_of_words(self, values: Tensor, dim: int = 0) -> Tensor:
        """The largest value of each class's words; "others" and background are left out.

        Args:
            values: float, W long in ``dim``.
            dim: the dimension of the words.

        Returns:
            The same, but C classes long in ``dim``.
        """
        if self.class_of_word == tuple(range(len(self))):
            return values
        sizes = [len(words) for words in self.words_of_class]
        of_classes = values.narrow(dim, 0, sum(sizes)).split(sizes, dim)
        import torch

        return torch.stack([words.amax(dim) for words in of_classes], dim)

    def competing_scores(self, scores: Tensor) -> Tensor:
        """Scores (C, ...) of classes, of those of words (W, ...).

        "Others" or background stays beside the classes, (C + 1, ...), so that the argmax means
        something.
        """
        best = self.best_of_words(scores)
        import torch

        return torch.cat([best, scores[-1:]]) if self.class_of_word[-1] < 0 else best

    def class_labels(self, labels: Tensor) -> Tensor:
        """Labels of words, integers, -1 for none, as labels of classes of the same dtype."""
        import torch

        table = torch.tensor([*self.class_of_word, -1], device=labels.device, dtype=labels.dtype)
        of_classes = torch.empty_like(labels)
        # part by part: as an index they are int64, larger than the labels of a large image
        parts = zip(of_classes.view(-1).split(_PART), labels.reshape(-1).split(_PART), strict=True)
        for target, part in parts:
            target.copy_(table[part.long()])
        return of_classes
