"""The class names that an image is segmented by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.data import MetadataCatalog

from ovseg.errors import UserError
from ovseg.vocabulary import Vocabulary


def vocabulary_of(inputs: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of an input dict: of its own class names, or of its dataset's.

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
    return vocabulary
