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

import argparse
import csv
import hashlib
import io
import json
import random
import tarfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageDraw, ImageFont

from open_clip_training.pairs_mining import Pair
from ovseg.errors import UserError
from ovseg.utils.io import atomic_path

COLUMNS = ("image", "caption", "noun", "mask", "raw", "score", "source", "image_id", "box")
#: what open_clip's own reader takes for a crop's text
PROMPT = "a photo of a {}."
PAIRS_A_SHARD = 5000
_SHEET = (6, 8)  # rows and columns of the contact sheet
_CELL, _LINE = 128, 16

Row = dict[str, Any]


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def read_json(path: Path, kind: type) -> Any:
    """What :func:`write_json` wrote, of the type ``kind``.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} is broken; delete it")
    return content


def plain_settings(options: argparse.Namespace, leave_out: Collection[str]) -> dict[str, Any]:
    """Options as :func:`write_json` takes them."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
        if name not in leave_out
    }


def with_digest(path: str | Path) -> str:
    """A path and what tells apart the contents of a file, where it is one on this machine."""
    try:
        if not PathManager.isfile(str(path)):
            return str(path)
    except NotImplementedError:  # on the net
        return str(path)
    digest = hashlib.sha256()
    with open(PathManager.get_local_path(str(path)), "rb") as file:
        while part := file.read(1 << 20):  # checkpoints may have gigabytes
            digest.update(part)
    return f"{path} (sha256 {digest.hexdigest()[:16]})"


def compare_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Compare with ``settings.json``, the record of an earlier run in the folder, if there is one.

    Raises:
        UserError: the folder was begun with other settings, or the record is broken.
    """
    path = folder / "settings.json"
    if not path.is_file():
        return
    earlier = read_json(path, dict)
    different = [name for name in settings if settings[name] != earlier.get(name)]
    if different:
        name = different[0]
        raise UserError(
            f"--output {str(folder)!r} was begun with other settings (--"
            f"{name.replace('_', '-')} {earlier.get(name)}, now {settings[name]}): give another "
            "folder, or delete this one"
        )


def write_crops(
    folder: Path, name: str, pairs: Iterable[Pair], fill: Sequence[int], source: str, image_id: str
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
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for index, pair in enumerate(pairs):
        stem = f"{name}_{index}"
        pictures = {
            "image": (f"{stem}.png", pair.filled(fill)[..., ::-1]),
            "raw": (f"{stem}_raw.png", pair.raw[..., ::-1]),
            "mask": (f"{stem}_mask.png", pair.mask.astype(np.uint8) * 255),
        }
        for file, picture in pictures.values():
            if not cv2.imwrite(str(folder / file), picture):
                raise UserError(f"--output: cannot write {folder / file}; is the disk full?")
        rows.append(
            {
                **{kind: file for kind, (file, _) in pictures.items()},
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
    with (
        atomic_path(folder / "pairs.csv") as path,
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
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


def draw_contact_sheet(folder: Path, rows: Sequence[Row], seed: int) -> None:
    """Write ``contact_sheet.png``: random pairs with noun and score, unfilled beside filled."""
    lines, columns = _SHEET
    chosen = random.Random(seed).sample(list(rows), min(len(rows), lines * columns))
    width, height = 2 * _CELL + 8, _CELL + _LINE + 8
    sheet = Image.new("RGB", (columns * width, -(-len(chosen) // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for index, row in enumerate(chosen):
        x, y = index % columns * width + 4, index // columns * height + 4
        for place, kind in enumerate(("raw", "image")):
            with Image.open(folder / row[kind]) as picture:
                scale = _CELL / max(picture.size)
                size = [max(1, round(side * scale)) for side in picture.size]
                sheet.paste(
                    picture.convert("RGB").resize((size[0], size[1])), (x + place * _CELL, y)
                )
        text = f"{row['noun'][:30]}  {row['score']:.2f}"
        draw.text((x, y + _CELL + 1), text, fill="black", font=font)
    with atomic_path(folder / "contact_sheet.png") as path:
        sheet.save(path)
