"""The segments and instances of one image and what can be done with them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ovseg.prediction import png_bytes
from ovseg.results.coco import box_of, coco_content, run_lengths
from ovseg.results.detections import detections

if TYPE_CHECKING:
    import supervision
    from detectron2.structures import Instances
    from torch import Tensor

    from ovseg.vocabulary import Vocabulary


@dataclass(frozen=True)
class Segment:
    """A part of an image that is one thing, or all of one kind of stuff.

    Attributes:
        id: its pixels in :attr:`PanopticPrediction.ids`.
        label: its class, an index into the class names.
        name: of its class.
        is_thing: a thing; otherwise stuff.
        score: of its class in the ensemble, 0..1.
    """

    id: int
    label: int
    name: str
    is_thing: bool
    score: float


@dataclass(eq=False, repr=False)
class PanopticPrediction:
    """The panoptic segmentation of one image: segments that do not overlap.

    Attributes:
        ids: int32 (H, W); the id of every pixel's segment, 0 for none.
        segments: in the order of their ids, which count from 1.
        class_names: the name of each class, in the order given.
        image: uint8 (H, W, 3), RGB, 0..255; the image itself.
        palette: the colours of the classes, one of :data:`ovseg.colours.PALETTES`.
    """

    ids: np.ndarray
    segments: list[Segment]
    class_names: list[str]
    image: np.ndarray
    palette: str = "default"

    @classmethod
    def of(
        cls,
        ids: Tensor,
        segments: Sequence[dict[str, Any]],
        vocabulary: Vocabulary,
        image: np.ndarray,
    ) -> PanopticPrediction:
        """From detectron2's ``panoptic_seg``."""
        return cls(
            ids.cpu().numpy(),
            [
                Segment(
                    segment["id"],
                    segment["category_id"],
                    vocabulary.names[segment["category_id"]],
                    segment["isthing"],
                    segment["score"],
                )
                for segment in segments
            ],
            list(vocabulary.names),
            image,
        )

    @property
    def masks(self) -> np.ndarray:
        """The mask of every segment: bool (S, H, W)."""
        return self.ids[None] == np.arange(1, len(self.segments) + 1)[:, None, None]

    def overlay(self) -> Image.Image:
        """The image with its segments, each in a shade of its class's colour, and a legend."""
        from ovseg.instance_drawing import draw_segments  # OpenCV and a font, for images alone

        labels = [segment.label for segment in self.segments]
        drawn = draw_segments(self.image, self.ids - 1, labels, self.class_names, self.palette)
        return Image.fromarray(drawn)

    def __repr__(self) -> str:
        """Its size, and the number of segments of each class."""
        return _in_short(self, [segment.name for segment in self.segments])

    def _repr_png_(self) -> bytes:
        """Notebooks show the overlay."""
        return png_bytes(self.overlay())

    def id_image(self) -> Image.Image:
        """The ids in COCO's colours: id = red + 256 x green + 65536 x blue."""
        channels = [self.ids >> shift & 255 for shift in (0, 8, 16)]
        return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))

    def describe(self) -> list[dict[str, Any]]:
        """The segments, ready for JSON: ``id``, ``label``, ``name``, ``is_thing``, ``score``,
        ``pixels``, ``share`` of the image (0..1) and ``box`` (left, top, width, height)."""
        total = max(self.ids.size, 1)
        entries = []
        for segment, mask in zip(self.segments, self.masks, strict=True):
            pixels = int(mask.sum())
            entries.append(
                {
                    "id": segment.id,
                    "label": segment.label,
                    "name": segment.name,
                    "is_thing": segment.is_thing,
                    "score": round(segment.score, 6),
                    "pixels": pixels,
                    "share": round(pixels / total, 6),
                    "box": box_of(run_lengths(mask)),
                }
            )
        return entries


@dataclass(eq=False, repr=False)
class InstancePrediction:
    """The things in one image, each with a mask of its own. Masks may overlap.

    Attributes:
        masks: bool (N, H, W), the best first.
        labels: int64 (N,); index into ``class_names``.
        scores: float32 (N,), 0..1; the class's probability x the mean probability inside the mask.
        class_names: the name of each class, in the order given.
        image: uint8 (H, W, 3), RGB, 0..255; the image itself.
        palette: the colours of the classes, one of :data:`ovseg.colours.PALETTES`.
    """

    masks: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    class_names: list[str]
    image: np.ndarray
    palette: str = "default"

    @classmethod
    def of(
        cls, instances: Instances, vocabulary: Vocabulary, image: np.ndarray
    ) -> InstancePrediction:
        """From detectron2's ``instances``."""
        masks, labels, scores = (
            field.cpu().numpy()
            for field in (instances.pred_masks, instances.pred_classes, instances.scores)
        )
        return cls(masks, labels, scores, list(vocabulary.names), image)

    def __len__(self) -> int:
        """The number of instances."""
        return len(self.masks)

    def at_least(self, score: float) -> InstancePrediction:
        """The instances that score no less than ``score``."""
        kept = self.scores >= score
        return replace(
            self, masks=self.masks[kept], labels=self.labels[kept], scores=self.scores[kept]
        )

    def overlay(self) -> Image.Image:
        """The image with its instances, each in a shade of its class's colour, the best on top,
        and a legend."""
        from ovseg.instance_drawing import draw_segments

        places = np.full(self.image.shape[:2], -1)
        for place in reversed(range(len(self))):
            places[self.masks[place]] = place
        labels = self.labels.tolist()
        drawn = draw_segments(self.image, places, labels, self.class_names, self.palette)
        return Image.fromarray(drawn)

    def __repr__(self) -> str:
        """The image's size, and the number of instances of each class."""
        return _in_short(self, [self.class_names[label] for label in self.labels.tolist()])

    def _repr_png_(self) -> bytes:
        """Notebooks show the overlay."""
        return png_bytes(self.overlay())

    def describe(self) -> list[dict[str, Any]]:
        """The instances, ready for JSON: ``label``, ``name``, ``score``, ``pixels``, ``box`` (left,
        top, width, height) and ``segmentation``, COCO's run-length encoding."""
        return [
            {
                "label": annotation["category_id"] - 1,
                "name": self.class_names[annotation["category_id"] - 1],
                "score": annotation["score"],
                "pixels": annotation["area"],
                "box": annotation["bbox"],
                "segmentation": annotation["segmentation"],
            }
            for annotation in self.to_coco()["annotations"]
        ]

    def to_coco(
        self, file_name: str | os.PathLike[str] = "", image_id: int = 1, polygons: bool = False
    ) -> dict[str, Any]:
        """The instances as a COCO file: ``images``, ``categories``, ``annotations``.

        There is one annotation for each instance, the best first. Category ids are labels + 1.
        Arguments are those of :meth:`ovseg.Prediction.to_coco`.
        """
        found = zip(self.labels.tolist(), self.masks, self.scores.tolist(), strict=True)
        size = self.image.shape[:2]
        return coco_content(found, self.class_names, size, file_name, image_id, polygons)

    def to_supervision(self) -> supervision.Detections:
        """The instances as ``supervision.Detections``.

        Raises:
            UserError: the package supervision is not installed.
        """
        labels, scores = self.labels.tolist(), self.scores.tolist()
        return detections(self.masks, labels, scores, self.class_names)


def _in_short(result: PanopticPrediction | InstancePrediction, names: Sequence[str]) -> str:
    height, width = result.image.shape[:2]
    found = ", ".join(f"{name} x {count}" for name, count in Counter(names).most_common())
    return f"<{type(result).__name__} {width} x {height}: {found or 'nothing found'}>"
