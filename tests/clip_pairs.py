"""A few mask-noun pairs on the disk, as collect_pairs.py writes them, and a CLIP to adapt."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from open_clip_training.pairs_mining import Pair
from open_clip_training.pairs_output import COLUMNS, write_crops, write_shards
from ovseg.modeling.clip import build_untrained_clip

FILL = (123, 117, 104)
NOUNS = {"red ball": (200, 30, 30), "grass": (30, 180, 40), "sea": (20, 60, 220)}
ARCHITECTURE = {
    "embed_dim": 16,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 16, "layers": 3, "width": 16, "head_width": 8, "patch_size": 4},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def random_pairs(count: int) -> list[Pair]:
    """Coloured regions of several shapes and sizes before a white picture."""
    rng = np.random.default_rng(0)
    pairs = []
    for index in range(count):
        noun = list(NOUNS)[index % len(NOUNS)]
        height, width = (int(side) for side in rng.integers(18, 40, 2))
        mask = np.zeros((height, width), dtype=bool)
        mask[: height // 2] = True
        mask[:, : int(rng.integers(4, width))] = True
        raw = np.full((height, width, 3), 255, dtype=np.uint8)
        raw[mask] = np.array(NOUNS[noun]) + rng.integers(-20, 20, 3)
        pairs.append(Pair(noun, 0.9, (0, 0, width, height), raw, mask))
    return pairs


def write_pairs(folder: Path, count: int = 14, shard_size: int = 8) -> Path:
    """A folder with ``count`` pairs as a table and as shards."""
    rows = write_crops(folder, "crops/0", random_pairs(count), FILL, "ground-truth", "0")
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    write_shards(folder, rows, shard_size)
    return folder


def write_clip(path: Path, depth: int = 0, seed: int = 1) -> Path:
    """A random CLIP of 16-pixel input, with or without mask prompts."""
    torch.manual_seed(seed)
    model = build_untrained_clip(ARCHITECTURE, depth)
    torch.save({"state_dict": model.state_dict(), "model_cfg": ARCHITECTURE}, path)
    return path
