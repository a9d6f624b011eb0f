"""A sheet of random pairs, to see at a glance what was mined."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ovseg.utils.io import atomic_path

_GRID = (6, 8)  # rows and columns
_CELL, _LINE = 128, 16


def draw_contact_sheet(folder: Path, rows: Sequence[Mapping[str, Any]], seed: int) -> None:
    """Write ``contact_sheet.png``: random pairs with noun and score, unfilled beside filled."""
    lines, columns = _GRID
    chosen = random.Random(seed).sample(list(rows), min(len(rows), lines * columns))
    width, height = 2 * _CELL + 8, _CELL + _LINE + 8
    sheet = Image.new("RGB", (columns * width, -(-len(chosen) // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for index, row in enumerate(chosen):
        x, y = index % columns * width + 4, index // columns * height + 4
        for place, kind in enumerate(("raw", "image")):
            with Image.open(folder / row[kind]) as crop:
                scale = _CELL / max(crop.size)
                size = [max(1, round(side * scale)) for side in crop.size]
                sheet.paste(crop.convert("RGB").resize((size[0], size[1])), (x + place * _CELL, y))
        text = f"{row['noun'][:30]}  {row['score']:.2f}"
        draw.text((x, y + _CELL + 1), text, fill="black", font=font)
    with atomic_path(folder / "contact_sheet.png") as path:
        sheet.save(path)
