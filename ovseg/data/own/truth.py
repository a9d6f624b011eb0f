"""What every form of ground truth has in common: an image's label map, however it is stored."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ovseg.errors import UserError

logger = logging.getLogger(__name__)

# (yaml file, code) that a warning has named in this process
_warned: set[tuple[str, str]] = set()


class Decoded(NamedTuple):
    """A label map, and what in its file no class is named for.

    Attributes:
        labels: integer (H, W), the class of every pixel or the ignored label.
        unnamed: pixels, all of the ignored label, of each value, colour or category without a
            class, as the user would write it.
    """

    labels: np.ndarray
    unnamed: dict[str, int]


@dataclass(frozen=True)
class Truth(ABC):
    """Where the ground truth of one image lies, and what its codes mean.

    Attributes:
        path: the file that holds it.
        described_in: the yaml file of the data set.
        ignore_label: the label of pixels without a class.
        strict: whether codes without a class are refused.
    """

    path: str
    described_in: str
    ignore_label: int
    strict: bool

    @property
    def place(self) -> str:
        """What the user calls it in a message."""
        return f"label map {self.path}"

    @property
    @abstractmethod
    def key(self) -> str:
        """The key of the yaml file that names the codes."""

    @abstractmethod
    def decode(self) -> Decoded:
        """The label map.

        Raises:
            UserError: the file is missing or broken.
        """

    def read(self) -> np.ndarray:
        """The label map, integer (H, W); a code without a class is named once by a warning.

        Raises:
            UserError: the file is missing or broken; or, with ``strict``, a code has no class.
        """
        labels, unnamed = self.decode()
        self.check_strict(unnamed)
        for code, pixels in unnamed.items():
            if (self.described_in, code) not in _warned:
                _warned.add((self.described_in, code))
                logger.warning(
                    "%s: %s is ignored wherever it occurs, since %s does not name it (%d pixels of "
                    "%s, for instance)", self.described_in, code, self.key, pixels, self.place,
                )  # fmt: skip
        return labels

    def check_strict(self, unnamed: Mapping[str, int]) -> None:
        """Refuse codes without a class, if they are to be refused.

        Raises:
            UserError: names the first of them.
        """
        for code, pixels in unnamed.items() if self.strict else ():
            raise UserError(
                f"{self.place}: {pixels} pixels of {code}, which {self.key} does not name; "
                f"name it in {self.described_in}, or leave out strict to ignore it"
            )


def smallest_type(ignore_label: int) -> type[np.generic]:
    """The type of a label map whose largest label is the ignored one."""
    return np.uint8 if ignore_label <= 255 else np.uint16


def decode_codes(
    codes: np.ndarray, label_of: Mapping[int, int], ignore_label: int, name: Callable[[int], str]
) -> Decoded:
    """The label map of an image with one code a pixel.

    Args:
        codes: integer (H, W), a value or the number of a colour.
        label_of: code -> class.
        ignore_label: the label of codes without a class.
        name: what the user calls a code.
    """
    found, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    table = [label_of.get(code, ignore_label) for code in found.tolist()]
    unnamed = {
        name(code): count
        for code, count in zip(found.tolist(), counts.tolist(), strict=True)
        if code not in label_of
    }
    labels = np.array(table, smallest_type(ignore_label))[places].reshape(codes.shape)
    return Decoded(labels, unnamed)
