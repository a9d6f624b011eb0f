"""The class names that an image is segmented by, and which of them are things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from detectron2.data import MetadataCatalog

from ovseg.errors import UserError
from ovseg.vocabulary import Vocabulary


def vocabulary_of(inputs: Mapping[str, Any], reject: float = 0.0) -> Vocabulary:
    """The vocabulary of an input dict: of its own class names, or of its dataset's.

    Args:
        inputs: see :meth:`OVSeg.forward`.
        reject: of the vocabulary.

    Raises:
        UserError: there is no class name.
    """
    if "class_names" in inputs:
        names = inputs["class_names"]
    else:
        names = MetadataCatalog.get(inputs["meta"]["dataset_name"]).stuff_classes
    vocabulary = names if isinstance(names, Vocabulary) else Vocabulary.of(names)
    if not len(vocabulary):
        raise UserError("class_names is empty: give at least one class name")
    return replace(vocabulary, reject=reject) if reject != vocabulary.reject else vocabulary


def common_vocabulary(batched_inputs: Sequence[Mapping[str, Any]]) -> Vocabulary:
    """The vocabulary that all images of a training batch have.

    Raises:
        UserError: they have different ones.
    """
    vocabulary, *others = (vocabulary_of(inputs) for inputs in batched_inputs)
    if any(other != vocabulary for other in others):
        raise UserError(
            "the images of a training batch have different class names; give all the same"
        )
    return vocabulary


def things_of(inputs: Mapping[str, Any], vocabulary: Vocabulary) -> frozenset[int]:
    """The labels of the classes of an input dict that are things; all where it does not say.

    Raises:
        UserError: a name of ``thing_classes`` is none of the classes.
    """
    return vocabulary.things(inputs.get("thing_classes"))
