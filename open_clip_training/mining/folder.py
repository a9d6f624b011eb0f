"""Mask-noun pairs on the disk: crops, table, shards, summary, contact sheet.

A folder of pairs holds

    pairs.csv             image,caption,noun,mask,raw,score,source,image_id,box
    crops/00000/*.png     <name>.png (background filled), <name>_raw.png, <name>_mask.png (0, 255)
    pairs-000000.tar ...  the same as WebDataset shards, where asked for
    summary.json contact_sheet.png
    settings.json nouns.json parts/00000.json ...    what a stopped run needs to go on

Paths in the table are relative to the folder.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from open_clip_training.mining.contact_sheet import draw_contact_sheet
from open_clip_training.mining.pairs import MaskNounPair
from ovseg.errors import UserError
from ovseg.utils.image_files import write_image
from ovseg.utils.io import atomic_path, read_json, write_json

COLUMNS = ("image", "caption", "noun", "mask", "raw", "score", "source", "image_id", "box")
#: what open_clip's own reader takes for a crop's text
PROMPT = "a photo of a {}."
PAIRS_A_SHARD = 5000

Row = dict[str, Any]


def write_crops(
    folder: Path,
    name: str,
    pairs: Iterable[MaskNounPair],
    fill: Sequence[int],
    source: str,
    image_id: str,
) -> list[Row]:
    """Write the crops of an image's pairs below ``folder``.

    Args:
        folder: of all pairs.
        name: of the image's crops, relative to ``folder`` and without suffix.
        pairs: of the image.
        fill: colour outside the regions, RGB 0..255.
        source: "proposal" or "ground-truth".
        image_id: of the image.

    Returns:
        Their rows of the table.
    """
    rows = []
    for index, pair in enumerate(pairs):
        stem = f"{name}_{index}"
        images = {
            "image": (f"{stem}.png", pair.filled(fill)[..., ::-1]),
            "raw": (f"{stem}_raw.png", pair.raw[..., ::-1]),
            "mask": (f"{stem}_mask.png", pair.mask.astype(np.uint8) * 255),
        }
        for file, image in images.values():
            write_image(folder / file, image)
        rows.append(
            {
                **{kind: file for kind, (file, _) in images.items()},
                "caption": PROMPT.format(pair.noun),
                "noun": pair.noun,
                "score": round(pair.score, 4),
                "source": source,
                "image_id": image_id,
                "box": " ".join(map(str, pair.box)),
            }
        )
    return rows


def merge_parts(folder: Path, count: int, seed: int, shards: bool) -> dict[str, Any]:
    """Make the table, the summary, the contact sheet and, if asked for, the shards.

    Args:
        folder: with parts 0 to ``count`` - 1, all there.
        count: of the parts.
        seed: chooses the pairs of the contact sheet.
        shards: write WebDataset shards too.

    Returns:
        The summary.

    Raises:
        UserError: a part cannot be read.
    """
    rows, counts = _read_parts(folder, count)
    write_table(folder, rows)
    nouns = Counter(row["noun"] for row in rows)
    summary = {
        "pairs": len(rows),
        "distinct nouns": len(nouns),
        "images with pairs": len({row["image_id"] for row in rows}),
        "mean score": round(sum(row["score"] for row in rows) / max(len(rows), 1), 4),
        "counts": dict(sorted(counts.items())),
        "most frequent": dict(nouns.most_common(50)),
    }
    if rows:
        draw_contact_sheet(folder, rows, seed)
        if shards:
            summary["shards"] = write_shards(folder, rows)
    write_json(folder / "summary.json", summary)
    return summary


def _read_parts(folder: Path, count: int) -> tuple[list[Row], Counter[str]]:
    rows: list[Row] = []
    counts: Counter[str] = Counter()
    for index in range(count):
        path = part_path(folder, index)
        part = read_json(path, dict)
        try:
            rows += part["rows"]
            counts.update(part["counts"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is broken; delete it") from error
    return rows, counts


def write_table(folder: Path, rows: Iterable[Row]) -> None:
    """Write ``pairs.csv``."""
    with (
        atomic_path(folder / "pairs.csv") as path,
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def part_path(folder: Path, index: int) -> Path:
    """Where part ``index`` is recorded once its crops are written."""
    return folder / "parts" / f"{index:05d}.json"


def write_shards(folder: Path, rows: Sequence[Row], size: int = PAIRS_A_SHARD) -> int:
    """Write ``pairs-000000.tar`` ... of ``size`` pairs each; returns how many.

    A pair's members are ``<key>.png``, ``.raw.png``, ``.mask.png``, ``.txt`` (the caption) and
    ``.json`` (its row).
    """
    starts = range(0, len(rows), size)
    for shard, start in enumerate(starts):
        with (
            atomic_path(folder / f"pairs-{shard:06d}.tar") as path,
            tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for index, row in enumerate(rows[start : start + size], start=start):
                members = {
                    "png": (folder / row["image"]).read_bytes(),
                    "raw.png": (folder / row["raw"]).read_bytes(),
                    "mask.png": (folder / row["mask"]).read_bytes(),
                    "txt": row["caption"].encode(),
                    "json": json.dumps(row, ensure_ascii=False).encode(),
                }
                for suffix, content in members.items():
                    info = tarfile.TarInfo(f"{index:09d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return len(starts)
