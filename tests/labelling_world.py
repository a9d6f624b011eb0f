"""Pictures to label, and the options of a model that labels them in a moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from PIL import Image

from ovseg.data.label_shards import read_member, told_rows

WORDS = ["grass", "brick wall", "water"]
#: the embedded model on pictures of a few pixels
FAST = ["--opts", "INPUT.MIN_SIZE_TEST", "32", "MODEL.DEVICE", "cpu"]


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Pictures of two colours, each another."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    paths = [folder / f"picture_{number:03d}.png" for number in range(count)]
    for path in paths:
        pixels = np.empty((40, 56, 3), np.uint8)
        edge = int(rng.integers(8, 32))
        pixels[:edge], pixels[edge:] = rng.integers(0, 256, (2, 3))
        Image.fromarray(pixels).save(path)
    return paths


def arguments(output: Path | str, *inputs: Path | str, options: tuple[str, ...] = ()) -> list[str]:
    """Of `ovseg label`."""
    return ["--class-names", *WORDS, "--input", *map(str, inputs), "--output", str(output),
            *options, *FAST]  # fmt: skip


def manifest_of(output: Path) -> dict[str, Any]:
    """The manifest of a finished run."""
    content: dict[str, Any] = json.loads((output / "manifest.json").read_text())
    return content


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a shard, as they were written."""
    for told, places in told_rows(path):
        row: dict[str, Any] = {**told, "labels": None, "scores": None}
        for name, place in places.items():
            if path.suffix == ".tar":
                row[name] = read_member(path, *place)
            else:
                group = pyarrow.parquet.ParquetFile(path).read_row_group(place[0], [name])
                row[name] = group.column(0)[place[1]].as_py()
        yield row


def rows_of(output: Path) -> list[dict[str, Any]]:
    """All rows, in the order of the manifest."""
    files = [entry["file"] for entry in manifest_of(output)["shards"]]
    return [row for file in files for row in read_rows(output / file)]
