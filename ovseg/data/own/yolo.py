"""YOLO segmentation: a text file an image, a line an object: ``class x1 y1 x2 y2 x3 y3 ...``.

The class counts from 0, x and y are shares of the image's width and height. An image without a text
file has no objects. The format is read here, not by a library: it is one split of a line, while
packages that read it (supervision, ultralytics) load every image or bring a detector along; the
polygons are drawn by pycocotools, as those of COCO are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovseg.data.coco_masks import decode_polygons, paint
from ovseg.data.label_maps import UnreadableTruth
from ovseg.errors import UserError
from ovseg.utils.images import image_size

from .truth import Decoded, Truth, smallest_type


@dataclass(frozen=True)
class YoloPolygons(Truth):
    """The text file of one image.

    Attributes:
        image: path of the image, whose size the polygons are shares of.
        label_of: class number in the text file -> label.
        background: label of the pixels in no polygon.
        complete: whether every number without a class is refused, since ``classes`` names all.
    """

    image: str
    label_of: Mapping[int, int]
    background: int
    complete: bool

    @property
    def place(self) -> str:
        return f"polygons {self.path}"

    @property
    def key(self) -> str:
        return "values"

    def decode(self) -> Decoded:
        height, width = image_size(self.image)
        painted = []
        unnamed: dict[str, int] = {}
        for number, line in self._lines():
            label, mask = self._object(number, line, height, width)
            if label not in self.label_of:
                name = f"class {label}"
                if self.complete:
                    raise UserError(
                        f"{self.place}, line {number}: class {label}, but classes names "
                        f"{len(self.label_of)}, counted from 0; add it in {self.described_in}"
                    )
                unnamed[name] = unnamed.get(name, 0) + int(mask.sum())
            painted.append((self.label_of.get(label, self.ignore_label), mask))
        empty = np.full((height, width), self.background, smallest_type(self.ignore_label))
        return Decoded(paint(painted, empty), unnamed)

    def _lines(self) -> list[tuple[int, str]]:
        try:
            text = Path(self.path).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise UnreadableTruth(f"{self.place} cannot be read ({error})") from error
        return [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]

    def _object(self, number: int, line: str, height: int, width: int) -> tuple[int, np.ndarray]:
        where = f"{self.place}, line {number}"
        parts = line.split()
        try:
            label, points = int(parts[0]), np.array([float(part) for part in parts[1:]])
        except ValueError as error:
            raise UserError(
                f"{where}: {line.strip()[:60]!r} is no class and coordinates; write "
                "'class x1 y1 x2 y2 x3 y3'"
            ) from error
        if len(points) == 4:
            raise UserError(f"{where} is a box, not a polygon; export segmentation from your tool")
        if points.size and not (points.min() >= -0.5 and points.max() <= 1.5):
            raise UserError(
                f"{where}: coordinates up to {points.max():g} are no shares of width and height; "
                "divide them by these"
            )
        points[::2] *= width
        points[1::2] *= height
        try:
            return label, decode_polygons([points.tolist()], height, width)
        except ValueError as error:
            raise UserError(f"{where}: {error}; correct it there") from error
