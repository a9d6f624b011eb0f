"""Label maps: one number a pixel, whose meaning ``classes`` or ``values`` gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.data.label_maps import read_labels
from ovseg.errors import UserError

from .truth import Decoded, Truth, decode_codes


@dataclass(frozen=True)
class ValueMap(Truth):
    """A label map whose values are of the user's choice.

    Attributes:
        label_of: value -> class, or the ignored label for the value that is meant to be ignored.
    """

    label_of: Mapping[int, int]

    @property
    def key(self) -> str:
        return "values"

    def decode(self) -> Decoded:
        return decode_codes(
            read_labels(self.path), self.label_of, self.ignore_label, lambda code: f"value {code}"
        )


def read_values(file: Path, entries: Any) -> dict[int, Any]:
    """The mapping ``values`` of a yaml file: whole numbers -> words.

    Raises:
        UserError: it is no such mapping.
    """
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{file}: values is no mapping; write values: {{1: ball, 2: chips}}")
    for value in entries:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UserError(f"{file}: values, {value!r} is no whole number from 0; write numbers")
    return dict(entries)
