"""Labels that ``ovseg label`` wrote, taken as ground truth: self-training.

Pixels without a class are ignored, and so is what scores less than ``min_score``: single pixels
where the rows have score maps, otherwise whole classes of an image, by their mean score in it.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovseg.data.label_maps import UnreadableTruth
from ovseg.data.label_shards import parquet, read_member, told_rows
from ovseg.errors import UserError
from ovseg.utils.io import read_json

from .truth import Decoded, Truth, smallest_type

logger = logging.getLogger(__name__)

_GROUPS_KEPT = 8  # row groups of Parquet files that a process holds


@dataclass(frozen=True)
class LabelledImage(Truth):
    """The labels of one image.

    Attributes:
        row: of the image, by its key.
        place_of: of its PNGs ``labels`` and ``scores``: in a tar file start and length, in a
            Parquet file row group and row.
        low: classes that are ignored, for their mean score.
        min_score: scores below it are ignored where there is a map of them.
    """

    row: str
    place_of: Mapping[str, tuple[int, int]]
    low: tuple[int, ...]
    min_score: float

    @property
    def place(self) -> str:
        return f"row {self.row} of {self.path}"

    @property
    def key(self) -> str:
        return "classes"

    def decode(self) -> Decoded:
        try:
            values = self._png("labels")
            scores = self._png("scores") if "scores" in self.place_of and self.min_score else None
        except Exception as error:  # readers raise nearly anything on a broken file
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreadableTruth(f"{self.place} cannot be read ({reason})") from error
        none = 255 if values.dtype == np.uint8 else 65535
        ignored = values == none
        if scores is not None:
            ignored |= scores < np.ceil(self.min_score * 255)
        elif self.low:
            ignored |= np.isin(values, self.low)
        labels = values.astype(smallest_type(self.ignore_label))
        labels[ignored] = self.ignore_label
        return Decoded(labels, {})

    def _png(self, name: str) -> np.ndarray:
        first, second = self.place_of[name]
        path = Path(self.path)
        if path.suffix == ".parquet":
            content = _row_group(path, first, name)[second].as_py()
        else:
            content = read_member(path, first, second)
        with Image.open(io.BytesIO(content)) as image:
            values = np.asarray(image)
        return values if values.dtype == np.uint8 else values.astype(np.uint16)


@lru_cache(_GROUPS_KEPT)
def _row_group(path: Path, group: int, column: str) -> Any:
    with parquet(str(path)).ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(0)


def read_manifest(folder: Path) -> dict[str, Any]:
    """``manifest.json`` of an output of ``ovseg label``.

    Raises:
        UserError: it is not there, or is something else.
    """
    file = folder / "manifest.json"
    if not file.is_file():
        raise UserError(
            f"labelled {str(folder)!r} has no manifest.json; give the --output of ovseg label, "
            "after it has come to its end"
        )
    manifest: dict[str, Any] = read_json(file, dict, "label the images again")
    classes, names, shards = (manifest.get(key) for key in ("classes", "names", "shards"))
    if (
        not isinstance(classes, list)
        or not isinstance(names, list)
        or not isinstance(shards, list)
        or not 0 < len(classes) == len(names)
    ):
        raise UserError(f"{file} is no manifest of ovseg label; label the images again")
    return manifest


def labelled_examples(
    folder: Path, min_score: float, ignore_label: int, described_in: str
) -> list[dict[str, Any]]:
    """Dataset dicts of all images that have labels.

    Raises:
        UserError: a shard is missing or broken, or images are no files of this machine.
    """
    found = []
    shards = read_manifest(folder)["shards"]
    errors = 0
    for entry in shards:
        path = folder / Path(entry["file"]).name
        for row, place_of in told_rows(path):
            if row["error"] is not None:
                errors += 1
                continue
            low = tuple(part["label"] for part in row["segments"] if part["score"] < min_score)
            truth = LabelledImage(
                path=str(path), described_in=described_in, ignore_label=ignore_label, strict=False,
                row=row["key"], place_of=place_of, low=low, min_score=min_score,
            )  # fmt: skip
            found.append({"file_name": _image_file(folder, row), "truth": truth})
    if errors:
        logger.warning("%s: %d images have no labels and are left out", folder, errors)
    return found


def _image_file(folder: Path, row: Mapping[str, Any]) -> str:
    if row["image"] is not None:
        image = (folder / row["image"]).resolve()
        if not image.is_relative_to(folder.resolve()):
            raise UserError(f"row {row['key']}: image {row['image']!r} lies outside of {folder}")
        return str(image)
    if "::" in row["source"] or "://" in row["source"]:
        raise UserError(
            f"image {row['source']!r} is no file of this machine; label again with --copy-images"
        )
    return str(row["source"])
