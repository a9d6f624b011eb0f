"""From classified masks to segments and instances; :mod:`ovseg.modeling.panoptic` in NumPy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ovseg.runtime.classify import Classified, best_of_words
from ovseg.runtime.resize import bilinear
from ovseg.segments import InstancePrediction, PanopticPrediction, Segment
from ovseg.vocabulary import Vocabulary

# a pixel is inside of a mask when its probability exceeds this
_INSIDE = np.float32(0.5)
# elements of resized masks that are held at a time
_TILE = 2**24


def panoptic_segments(
    classified: Classified,
    masks: np.ndarray,
    vocabulary: Vocabulary,
    things: frozenset[int],
    image: np.ndarray,
    object_mask_threshold: float,
    overlap_threshold: float,
) -> PanopticPrediction:
    """Segments that do not overlap.

    Args:
        classified: proposals with the probabilities of the vocabulary's words.
        masks: float32 (Q, h, w), 0..1; all masks of the image.
        vocabulary: of the image.
        things: the classes that are things; the others are stuff.
        image: uint8 (H, W, 3), RGB, 0..255.
        object_mask_threshold, overlap_threshold: 0..1, see
            :func:`ovseg.modeling.panoptic.panoptic_segments`.
    """
    scores, words = classified.class_probs.max(axis=1), classified.class_probs.argmax(axis=1)
    masks = masks[classified.queries]
    kept = (scores > object_mask_threshold) & (masks > _INSIDE).any(axis=(1, 2))
    scores, words = scores[kept], words[kept]
    winners, inside = _winners(scores, masks[kept], (image.shape[0], image.shape[1]))
    won = np.bincount(winners.ravel() + 1, minlength=len(scores) + 1)[1:]
    lasts = (won > 0) & (inside > 0) & (won / np.maximum(inside, 1) >= overlap_threshold)
    segments: list[Segment] = []
    of_stuff: dict[int, int] = {}
    id_of = np.zeros(len(scores) + 1, np.int32)  # the last place is no proposal's
    for place in np.flatnonzero(lasts).tolist():
        label, score = vocabulary.class_of_word[int(words[place])], float(scores[place])
        if label < 0:
            continue
        number = of_stuff.get(label, len(segments) + 1)
        if number > len(segments):
            is_thing = label in things
            segments.append(Segment(number, label, vocabulary.names[label], is_thing, score))
            if not is_thing:
                of_stuff[label] = number
        elif score > segments[number - 1].score:
            segments[number - 1] = Segment(number, label, vocabulary.names[label], False, score)
        id_of[place] = number
    return PanopticPrediction(id_of[winners], segments, list(vocabulary.names), image)


def instances(
    classified: Classified,
    masks: np.ndarray,
    vocabulary: Vocabulary,
    things: frozenset[int],
    image: np.ndarray,
    max_instances: int,
) -> InstancePrediction:
    """Things, each with a mask of its own, the best first; masks may overlap.

    Args:
        classified, masks, vocabulary, things, image: see :func:`panoptic_segments`.
        max_instances: at least 1.
    """
    labels = np.array(sorted(things), np.int64)
    probs = best_of_words(classified.class_probs, vocabulary, axis=1)[:, labels]
    pairs = np.argsort(-probs.ravel(), kind="stable")[:max_instances]
    rows, columns = np.divmod(pairs, max(len(labels), 1))
    queries = classified.queries[rows]
    size = image.shape[0], image.shape[1]
    binary = np.zeros((len(queries), *size), bool)
    certain = np.zeros(len(queries), np.float32)
    for part, resized in _resized(masks, queries, size):
        binary[part] = resized > _INSIDE
        sums = np.where(binary[part], resized, 0).sum(axis=(1, 2), dtype=np.float32)
        certain[part] = sums / np.maximum(binary[part].sum(axis=(1, 2)), 1)
    scores = (probs.ravel()[pairs] * certain).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    order = order[np.asarray(binary.any(axis=(1, 2)))[order]]
    return InstancePrediction(
        binary[order], labels[columns][order], scores[order], list(vocabulary.names), image
    )


def _winners(
    scores: np.ndarray, masks: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Which of K proposals has the largest score x mask at every pixel, the first of equals.

    Returns:
        int64 (height, width), -1 where all are 0; and how many pixels are inside of each resized
        mask, int64 (K,).
    """
    best = np.zeros(size, np.float32)
    winners = np.full(size, -1, np.int64)
    inside = np.zeros(len(scores), np.int64)
    for part, resized in _resized(masks, np.arange(len(scores)), size):
        inside[part] = (resized > _INSIDE).sum(axis=(1, 2))
        weighted = resized * scores[part, None, None]
        places = weighted.argmax(axis=0)
        values = np.take_along_axis(weighted, places[None], axis=0)[0]
        better = values > best
        best = np.where(better, values, best)
        winners = np.where(better, places + part.start, winners)
    return winners, inside


def _resized(
    masks: np.ndarray, queries: np.ndarray, size: tuple[int, int]
) -> Iterator[tuple[slice, np.ndarray]]:
    """The masks of ``queries``, float32 (N, height, width), a few at a time and where these are."""
    step = max(1, _TILE // max(size[0] * size[1], 1))
    for first in range(0, len(queries), step):
        some = masks[queries[first : first + step]]
        yield slice(first, first + len(some)), bilinear(some, size)
