"""The words that an image is segmented by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.data import MetadataCatalog

from ovseg.errors import UserError


def class_names_of(inputs: Mapping[str, Any]) -> list[str]:
    """The words of an input dict: its own, or those of its dataset; a new list.

    Raises:
        UserError: when there are none.
    """
    if "class_names" in inputs:
        words = inputs["class_names"]
    else:
        words = MetadataCatalog.get(inputs["meta"]["dataset_name"]).stuff_classes
    words = [word.strip() for word in words]
    if not words:
        raise UserError("class_names is empty: give at least one word")
    return words
