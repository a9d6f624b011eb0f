"""Both classifications and their ensemble (paper sections 3.1, 3.2, 3.4), in NumPy.

This is the arithmetic of :class:`ovseg.modeling.OVSeg`, :mod:`ovseg.modeling.ensemble` and
:mod:`ovseg.modeling.reject`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovseg.vocabulary import Vocabulary

#: see :data:`ovseg.modeling.reject.SOFTNESS`
SOFTNESS = 2.0


@dataclass
class Regions:
    """The proposals of one image. They do not depend on any class names.

    Attributes:
        image: uint8 (3, H, W), 0..255, channels in the order that the model was given.
        masks: float32 (Q, H, W); probability of every pixel, 0..1.
        embeddings: float32 (Q, D), in CLIP's text space, of any length.
        features: float32 (V, D), CLIP's of the V valid masks; None where CLIP classifies no crops.
        valid: bool (Q,).
    """

    image: np.ndarray
    masks: np.ndarray
    embeddings: np.ndarray
    features: np.ndarray | None = None
    valid: np.ndarray | None = None


@dataclass
class Text:
    """A vocabulary in CLIP's text space.

    Attributes:
        features: float32 (W + 1, D), of unit length; the last row stands for "no object".
        background: float32 (M, D), of general words; None without ``reject``.
    """

    features: np.ndarray
    background: np.ndarray | None = None


@dataclass
class Classified:
    """Proposals with the probabilities of the W that compete.

    Attributes:
        class_probs: float32 (K, W), not negative.
        queries: int64 (K,); which mask of the image each row belongs to.
    """

    class_probs: np.ndarray
    queries: np.ndarray


def normalise(features: np.ndarray) -> np.ndarray:
    """Rows (N, D) at unit length; zeros stay zeros."""
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.maximum(lengths, 1e-12)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last dimension."""
    if not logits.shape[-1]:
        return logits
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def classify_queries(regions: Regions, text: Text, temperature: float) -> np.ndarray:
    """MaskFormer's probabilities (Q, W)."""
    unit = np.float32(temperature) * normalise(regions.embeddings)
    logits = unit @ text.features.T
    if text.background is None:
        # "no object" is dropped after the softmax here, and before it in CLIP's branch
        return softmax(logits)[:, :-1]
    if regions.features is not None:
        return softmax(logits)  # "no object" is the background
    return with_background(logits[:, :-1], unit @ text.background.T)


def classify_crops(features: np.ndarray, text: Text, temperature: float) -> np.ndarray:
    """CLIP's probabilities (V, W) of crops with features (V, D)."""
    unit = np.float32(temperature) * normalise(features)
    logits = (unit @ text.features.T)[:, :-1]
    if text.background is None:
        return softmax(logits)
    return with_background(logits, unit @ text.background.T)


def with_background(logits: np.ndarray, background: np.ndarray) -> np.ndarray:
    """See :func:`ovseg.modeling.reject.probabilities_with_background`."""
    count = logits.shape[-1]
    both = np.concatenate([logits, background], axis=-1)
    known = softmax(both)[:, :count]
    softened = softmax(both / np.float32(SOFTNESS))[:, count:]
    return np.concatenate([known, softened.sum(axis=-1, keepdims=True)], axis=-1)


def classify(regions: Regions, text: Text, temperature: float, weight: float) -> Classified:
    """The ensemble of MaskFormer's and, where there are features of crops, CLIP's classification.

    Args:
        regions: of one image.
        text: of the vocabulary.
        temperature: factor on cosine similarities.
        weight: see :func:`ovseg.modeling.ensemble.ensemble`.
    """
    probs = classify_queries(regions, text, temperature)
    everything = np.arange(len(probs))
    if regions.features is None or regions.valid is None:
        return Classified(probs, everything)
    clip = classify_crops(regions.features, text, temperature)
    if weight == 0:  # the published meaning: CLIP alone, over the valid masks only
        return Classified(clip, np.flatnonzero(regions.valid))
    clip_of_all = np.ones_like(probs)
    clip_of_all[regions.valid] = clip
    combined = probs ** np.float32(1 - weight) * clip_of_all ** np.float32(weight)
    return Classified(combined, everything)


def weigh_background(classified: Classified, strength: float) -> Classified:
    """See :func:`ovseg.modeling.reject.weigh_background`."""
    known, background = classified.class_probs[:, :-1], classified.class_probs[:, -1:]
    if strength == 1:
        known = np.zeros_like(known)
    else:
        background = background * np.float32(strength / (1 - strength))
    return Classified(np.concatenate([known, background], axis=1), classified.queries)


def best_proposals(classified: Classified, masks: np.ndarray, vocabulary: Vocabulary) -> Classified:
    """See :func:`ovseg.modeling.ensemble.best_proposals`."""
    kept = np.any(masks.reshape(len(masks), -1), axis=1)[classified.queries]
    probs, queries = classified.class_probs[kept], classified.queries[kept]
    if not len(queries):
        return Classified(probs, queries)
    chosen = np.unique(best_of_words(probs, vocabulary, axis=1).argmax(axis=0))
    return Classified(probs[chosen], queries[chosen])


def best_of_words(values: np.ndarray, vocabulary: Vocabulary, axis: int = 0) -> np.ndarray:
    """The largest value of each class's words, see :meth:`Vocabulary.best_of_words`."""
    sizes = [len(words) for words in vocabulary.words_of_class]
    values = values.take(np.arange(sum(sizes)), axis)
    return np.maximum.reduceat(values, np.cumsum([0, *sizes[:-1]]), axis)


def class_labels(labels: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Labels of words, -1 for none, as int32 labels of classes."""
    return np.array([*vocabulary.class_of_word, -1], np.int32)[labels]
