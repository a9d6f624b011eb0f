"""What visitors ask for, and the answers. An image is encoded once, whatever is asked of it."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ovseg.data.vocabulary import SEPARATOR, read_vocabulary
from ovseg.errors import UserError
from ovseg.prediction import Prediction
from ovseg.utils.images import read_image
from ovseg.web.models import Models

if TYPE_CHECKING:
    from ovseg.encoded_image import EncodedImage
    from ovseg.runtime import EncodedImage as ExportedImage

#: the most words, synonyms among them, that one visitor may ask for at once
MOST_WORDS = 1000
_LONGEST_TEXT = 100_000
# predictions that stay for the tabs of the page, which show one after the other
_PREDICTIONS_KEPT = 4


@dataclass(frozen=True)
class Upload:
    """An image as a visitor gave it.

    Attributes:
        path: where it lies on the server.
        name: what its file is called where it comes from.
    """

    path: str
    name: str

    @property
    def stem(self) -> str:
        """The name for files of results: no folders, no suffix, nothing that a shell minds."""
        kept = "".join(c if c.isalnum() or c in "-_ " else "_" for c in Path(self.name).stem)
        return kept.strip()[:80] or "image"


@dataclass(frozen=True)
class Task:
    """What a visitor wants to see.

    Attributes:
        image: the image.
        model: the name of the model.
        class_names: a class an entry, its synonyms after ``|``.
        ensemble_weight: see :meth:`ovseg.encoded_image.EncodedImage.segment`; None: its own.
        mask_threshold, reject: likewise.
    """

    image: Upload
    model: str
    class_names: tuple[str, ...]
    ensemble_weight: float | None = None
    mask_threshold: float | None = None
    reject: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The options of :meth:`ovseg.encoded_image.EncodedImage.segment`."""
        return {
            "ensemble_weight": self.ensemble_weight,
            "mask_threshold": self.mask_threshold,
            "reject": self.reject,
        }


@dataclass(frozen=True)
class Answer:
    """The segmentation that a task asks for.

    Attributes:
        prediction: the segmentation, at the size of the image or of what it was reduced to.
        encoding_seconds: how long the image took to be encoded; 0 where it was already.
        segmenting_seconds: how long the class names and the segmentation took.
    """

    prediction: Prediction
    encoding_seconds: float
    segmenting_seconds: float


def class_names_of(text: str) -> tuple[str, ...]:
    """The class names that a visitor typed, a class a line; checked.

    Raises:
        UserError: there is none, there are too many, or one of them cannot be used.
    """
    if len(text) > _LONGEST_TEXT:
        raise UserError(f"class names: {len(text)} letters are too many; at most {_LONGEST_TEXT}")
    lines = tuple(" ".join(line.split()) for line in text.splitlines() if line.strip())
    if not lines:
        raise UserError("no class names; type at least one, a class a line")
    words = sum(1 + line.count(SEPARATOR) for line in lines)
    if words > MOST_WORDS:
        raise UserError(f"class names: {words} words are too many; give at most {MOST_WORDS}")
    read_vocabulary(lines)
    return lines


def looks_like_a_list(class_names: Sequence[str]) -> bool:
    """Whether somebody may have typed several classes on a single line."""
    return len(class_names) == 1 and class_names[0].count(",") > 0


@dataclass
class Tasks:
    """Answers tasks. Images stay encoded, those used last, so that new words are cheap.

    Attributes:
        models: to choose from.
        max_side: images with a longer side, in pixels, are reduced to it.
        keep_encoded: how many images stay encoded.
    """

    models: Models
    max_side: int = 1600
    keep_encoded: int = 8

    def __post_init__(self) -> None:
        """Set up what is kept."""
        # not as decorators: what they keep is this object's
        self._encoded = functools.lru_cache(self.keep_encoded)(self._encode)
        self._segmented = functools.lru_cache(_PREDICTIONS_KEPT)(self._segment)

    def encode(self, image: Upload, model: str) -> EncodedImage | ExportedImage:
        """An image after all that does not depend on class names.

        Raises:
            UserError: there is no such model, or the file is no image.
        """
        return self._encoded(image, model)

    def answer(self, task: Task, proposals: bool = False) -> Answer:
        """Segment as a task asks for.

        Args:
            task: what to do.
            proposals: give the prediction's proposals too.

        Raises:
            UserError: anything that cannot be used.
        """
        began = time.perf_counter()
        encoded = self.encode(task.image, task.model)
        between = time.perf_counter()
        if proposals:
            prediction = encoded.segment(task.class_names, proposals=True, **task.settings)
        else:
            prediction = self._segmented(task)
        return Answer(prediction, between - began, time.perf_counter() - between)

    def _segment(self, task: Task) -> Prediction:
        encoded = self.encode(task.image, task.model)
        return encoded.segment(task.class_names, **task.settings)

    def _encode(self, image: Upload, model: str) -> EncodedImage | ExportedImage:
        predictor = self.models.get(model)
        return predictor.encode(reduced(read_upload(image), self.max_side))


def read_upload(image: Upload) -> np.ndarray:
    """A visitor's image, uint8 (H, W, 3), RGB, 0..255.

    Raises:
        UserError: the file is no image; it names the visitor's file, and no path of the server.
    """
    try:
        return read_image(image.path)
    except UserError as error:
        raise UserError(str(error).replace(image.path, image.name)) from error


def reduced(image: np.ndarray, max_side: int) -> np.ndarray:
    """An image (H, W, 3) with no side longer than ``max_side`` pixels, its aspect kept."""
    if max(image.shape[:2]) <= max_side:
        return image
    smaller = Image.fromarray(image)
    smaller.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return np.asarray(smaller)
