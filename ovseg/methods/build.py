"""The classifier that a config names."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from torch import nn

from ovseg.modeling.clip import ClipAdapter
from ovseg.modeling.seen_classes import SeenClasses, training_classes

from .generated_features import GeneratedFeatures
from .pixel_classifiers import FixedList, PixelText, WordVectors


def build_classifier(
    cfg: CfgNode,
    channels: int,
    classes: Sequence[tuple[str, ...]],
    clip_adapter: ClipAdapter | None,
) -> nn.Module:
    """The classifier of ``MODEL.METHOD.CLASSIFIER``.

    Args:
        cfg: checked already.
        channels: of the pixel features.
        classes: of the training.
        clip_adapter: whose texts it uses; None for "fixed".

    Raises:
        UserError: a data set of ``MODEL.METHOD.NAMED_CLASSES`` is not known.
    """
    method = cfg.MODEL.METHOD
    if method.CLASSIFIER == "fixed":
        return FixedList(channels, classes)
    assert clip_adapter is not None
    if method.CLASSIFIER == "pixel_text":
        return PixelText(channels, clip_adapter, method.SPATIAL_BLOCKS)
    seen = SeenClasses(word for words in classes for word in words)
    if method.CLASSIFIER == "word_vectors":
        return WordVectors(channels, clip_adapter, seen, method.SEEN_PENALTY)
    named = training_classes(method.NAMED_CLASSES, "MODEL.METHOD.NAMED_CLASSES")
    unseen = [words for words in named if not seen.has(words)]
    hidden = cfg.MODEL.SEM_SEG_HEAD.EMBED_HIDDEN_DIM
    start = round(method.GENERATED_FROM * cfg.SOLVER.MAX_ITER)
    return GeneratedFeatures(channels, classes, unseen, clip_adapter, hidden, start)
