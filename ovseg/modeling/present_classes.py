"""The classes that an image shows: all others are dropped, and the rest is decided again.

A class that wins hardly any pixel is mostly a mistake, and takes probability from those that are
there. FreeCP (ICCV 2025) purifies class names so before it segments, and SED (CVPR 2024, section
3.3) rejects classes early; here the first decision of the ensemble says which are left.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ovseg.structures import Classified, TextEmbeddings
from ovseg.vocabulary import Vocabulary

from .crop_choice import thinned

# pixels along the longer side that are looked at
_SIDE = 128
# elements of the largest intermediate array
_TILE = 2**22


def present_classes(
    classified: Classified, masks: Tensor, vocabulary: Vocabulary, min_area: float
) -> list[int]:
    """The labels of the classes that win more than a share of the pixels, in order.

    Args:
        classified: proposals with the probabilities of the vocabulary's words.
        masks: (Q, H, W), 0..1, all of the image.
        vocabulary: of the image.
        min_area: 0..1.
    """
    pixels = thinned(masks, _SIDE)[classified.queries]
    probs = classified.class_probs.to(pixels.dtype)
    wins = torch.zeros(probs.shape[1], dtype=torch.int64, device=probs.device)
    for part in pixels.split(max(1, _TILE // max(1, probs.shape[1])), dim=1):
        best, words = (probs.T @ part).max(dim=0)
        wins += torch.bincount(words[best > 0], minlength=len(wins))
    of_classes = torch.zeros(len(vocabulary) + 1, dtype=torch.int64)  # the last is no class
    of_classes.index_add_(0, torch.tensor(vocabulary.class_of_word) % len(of_classes), wins.cpu())
    present = of_classes[:-1] > min_area * pixels.shape[1]
    return present.nonzero()[:, 0].tolist()


def words_of(classes: list[int], vocabulary: Vocabulary) -> list[int]:
    """The places of the words of some classes, and of what is no class."""
    kept = {*classes, -1}
    return [place for place, label in enumerate(vocabulary.class_of_word) if label in kept]


def only(text: TextEmbeddings, classes: list[int]) -> TextEmbeddings:
    """The text embeddings of some classes of a vocabulary, at least two."""
    vocabulary = replace(
        text.vocabulary,
        names=tuple(text.vocabulary.names[label] for label in classes),
        words_of_class=tuple(text.vocabulary.words_of_class[label] for label in classes),
    )
    count = len(text.features) - 1  # the background has no row here, "no object" the last
    rows = [place for place in words_of(classes, text.vocabulary) if place < count]
    of_crops = None if text.of_crops is None else text.of_crops[rows]
    return TextEmbeddings(vocabulary, text.features[[*rows, count]], text.background, of_crops)


def without_others(
    classified: Classified, classes: list[int], vocabulary: Vocabulary
) -> Classified:
    """A classification by all classes in which only some, and what is no class, have any chance."""
    kept = words_of(classes, vocabulary)
    return among_all(
        replace(classified, class_probs=classified.class_probs[:, kept]), classes, vocabulary
    )


def among_all(classified: Classified, classes: list[int], vocabulary: Vocabulary) -> Classified:
    """A classification by some classes as one by all; the others have no probability."""
    probs = classified.class_probs
    spread = probs.new_zeros((len(probs), len(vocabulary.class_of_word)))
    spread[:, words_of(classes, vocabulary)] = probs
    return replace(classified, class_probs=spread)
