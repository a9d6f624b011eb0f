"""The segmentation of one image and what can be done with it."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from PIL import Image

from ovseg.errors import UserError
from ovseg.plain_drawing import drawing
from ovseg.results.coco import coco_content
from ovseg.results.detections import detections
from ovseg.results.files import ResultPaths, save_result
from ovseg.utils.io import user_path
from ovseg.utils.label_maps import count_labels

if TYPE_CHECKING:
    import supervision

#: label maps with more classes than this have 16 bits
_MOST_CLASSES_IN_8_BITS = 254


class ImageOptions(TypedDict, total=False):
    """The options of a segmentation that every ``Predictor`` has; see
    :meth:`ovseg.encoded_image.EncodedImage.segment`."""

    class_probs: bool
    proposals: bool
    reject: float | None
    ensemble_weight: float | None
    mask_threshold: float | None


@dataclass
class ProposalScores:
    """The proposals of one image and what both branches say of them.

    Attributes:
        masks: float32 (Q, h, w), 0..1; probability of every pixel, at the size that the image was
            given to the model in.
        maskformer_probs: float32 (Q, C), 0..1; None for proposals of another system.
        clip_probs: float32 (Q, C), 0..1, NaN for masks without a pixel above the threshold; None
            without CLIP ensemble.
    """

    masks: np.ndarray
    maskformer_probs: np.ndarray | None
    clip_probs: np.ndarray | None


@dataclass(eq=False, repr=False)  # arrays have no single answer, and are long
class Prediction:
    """The segmentation of one image.

    Attributes:
        labels: int32 (H, W); index into ``class_names``, -1 where no class has a score, or where
            none of them won.
        scores: float32 (H, W); the score of that class, 0 where there is none. It is a sum over
            proposals and may exceed 1.
        class_names: the name of each class, in the order given.
        image: uint8 (H, W, 3), RGB, 0..255; the image itself.
        class_probs: float32 (C, H, W), where asked for: the classes' scores, divided by the sum of
            the scores of everything that competes. They sum to 1, or to less where "others" has a
            part in it beside a single class, or none of these with ``reject``, or to 0 where
            nothing scores.
        proposals: where asked for.
        palette: the colours of the classes, one of :data:`ovseg.colours.PALETTES`.
    """

    labels: np.ndarray
    scores: np.ndarray
    class_names: list[str]
    image: np.ndarray
    class_probs: np.ndarray | None = None
    proposals: ProposalScores | None = None
    palette: str = "default"

    @cached_property
    def masks(self) -> np.ndarray:
        """The mask of every class: bool (C, H, W); empty for classes that were not found."""
        return self.labels[None] == np.arange(len(self.class_names))[:, None, None]

    def __repr__(self) -> str:
        """Its size, and the classes that were found with their share of the image."""
        height, width = self.labels.shape
        areas = self.areas()
        found = sorted(self._found, key=lambda label: -areas[label])
        shares = (f"{self.class_names[i]} {areas[i] / self.labels.size:.1%}" for i in found)
        return f"<Prediction {width} x {height}: {', '.join(shares) or 'nothing found'}>"

    def _repr_png_(self) -> bytes:
        """Notebooks show the overlay."""
        return png_bytes(self.overlay())

    def areas(self) -> list[int]:
        """Pixels of every class, in the order of ``class_names``."""
        return count_labels(self.labels, len(self.class_names)).tolist()

    def overlay(self, opacity: float = 0.5, *, steady: bool = False) -> Image.Image:
        """The image with its regions, their outlines and names, and a legend on its right.

        Args:
            opacity: of the regions' colours, 0 (outlines alone) to 1 (no image under them).
            steady: with the same legend for every frame of a video.
        """
        colours = self._colours
        drawn = drawing()(
            self.image, self.labels, self.class_names, opacity, colours, steady=steady
        )
        return Image.fromarray(drawn)

    def label_image(self) -> Image.Image:
        """The label map as an image: palette (grey over 254 classes), a pixel's value its label.

        Pixels without a class are 255, or 65535 in 16 bits.
        """
        none = self._none_label
        values = np.where(self.labels < 0, none, self.labels)
        image = Image.fromarray(values.astype(np.uint8 if none == 255 else np.uint16))
        if none == 255:
            colours = np.zeros((256, 3), np.uint8)
            colours[: len(self.class_names)] = self._colours
            image.putpalette(colours.tobytes())
        return image

    def save(self, folder: str | os.PathLike[str], name: str = "prediction") -> ResultPaths:
        """Write ``<name>_overlay.png``, ``<name>_labels.png`` and ``<name>.json`` into a folder.

        The folder is made if it is not there; files of the same names are replaced.

        Returns:
            The paths.

        Raises:
            UserError: the name is empty or holds a separator of folders, or a file cannot be
                written.
        """
        if not isinstance(name, str) or not name or set(name) & {"/", "\\", "\0"}:
            raise UserError(f"name {name!r} is no file's name; give a text without / and \\")
        paths = ResultPaths.beside(user_path(folder) / f"{name}_overlay.png", name)
        save_result(self, paths, {})
        return paths

    def to_json(self) -> str:
        """:meth:`describe` as JSON."""
        return json.dumps(self.describe(), indent=2, ensure_ascii=False)

    def describe(self) -> dict[str, Any]:
        """What was found where, ready for JSON.

        ``classes`` has one entry for every class, in the order of the labels: ``label``, ``name``,
        ``pixels``, ``share`` of the image (0..1), ``mean_score`` over its pixels (``None``
        without any), and the ``color`` of overlay and label map. ``no_class`` tells of the pixels
        without a class; its ``label`` is their value in :meth:`label_image`.
        """
        areas = self.areas()
        sums = count_labels(self.labels, len(self.class_names), self.scores).tolist()
        total = max(self.labels.size, 1)
        classes = [
            {
                "label": index,
                "name": name,
                "pixels": pixels,
                "share": round(pixels / total, 6),
                "mean_score": round(sums[index] / pixels, 6) if pixels else None,
                "color": "#{:02x}{:02x}{:02x}".format(*colour),
            }
            for index, (name, pixels, colour) in enumerate(
                zip(self.class_names, areas, self._colours.tolist(), strict=True)
            )
        ]
        height, width = self.labels.shape
        nothing = self.labels.size - sum(areas)
        return {
            "width": width,
            "height": height,
            "classes": classes,
            "no_class": {
                "label": self._none_label,
                "pixels": nothing,
                "share": round(nothing / total, 6),
            },
        }

    def to_coco(
        self, file_name: str | os.PathLike[str] = "", image_id: int = 1, polygons: bool = False
    ) -> dict[str, Any]:
        """The segmentation as a COCO instances file: ``images``, ``categories``, ``annotations``.

        There is one annotation for each class that was found. Category ids are labels + 1.

        Args:
            file_name: of the image.
            image_id: of the image.
            polygons: outlines in place of run-length encodings: x and y of corners, in pixels. A
                hole is joined to the outline around it; straight lines of pixels are left out.
        """
        found = ((label, self.labels == label) for label in self._found)
        return coco_content(
            ((label, mask, self._score(mask)) for label, mask in found),
            self.class_names,
            self.labels.shape,
            file_name,
            image_id,
            polygons,
        )

    def to_labelstudio(self, image: str | os.PathLike[str] = "") -> dict[str, Any]:
        """A task of Label Studio with a brush mask for each class that was found.

        Args:
            image: where Label Studio finds the image.
        """
        from ovseg.results.labelstudio import task

        return task(self, os.fspath(image))

    def to_yolo(self) -> str:
        """YOLO's segmentation text: a line for each part of each class.

        A line is the label, then x and y in 0..1 of each corner. Regions that are straight lines of
        pixels are left out.
        """
        from ovseg.results.yolo import text

        return text(self)

    def to_supervision(self) -> supervision.Detections:
        """The classes that were found as ``supervision.Detections``, one mask a class.

        Raises:
            UserError: the package supervision is not installed.
        """
        masks = self.labels[None] == np.array(self._found)[:, None, None]
        return detections(
            masks, self._found, [self._score(mask) for mask in masks], self.class_names
        )

    @property
    def _found(self) -> list[int]:
        return np.flatnonzero(self.areas()).tolist()

    def _score(self, mask: np.ndarray) -> float:
        return float(self.scores[mask].mean())

    @property
    def _none_label(self) -> int:
        return 255 if len(self.class_names) <= _MOST_CLASSES_IN_8_BITS else 65535

    @property
    def _colours(self) -> np.ndarray:
        from ovseg.colours import palette

        return palette(len(self.class_names), self.palette)


def png_bytes(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
