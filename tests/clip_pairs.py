"""A few mask-noun pairs on the disk, as collect_pairs.py writes them, and a CLIP to adapt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from open_clip_training.mining.folder import write_crops, write_shards, write_table
from open_clip_training.mining.pairs import MaskNounPair
from ovseg.modeling.clip import architecture_of_name, build_untrained_clip, read_clip_file

FILL = (123, 117, 104)
NOUNS = {"red ball": (200, 30, 30), "grass": (30, 180, 40), "sea": (20, 60, 220)}
ARCHITECTURE = {
    "embed_dim": 16,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 16, "layers": 3, "width": 16, "head_width": 8, "patch_size": 4},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def random_pairs(count: int) -> list[MaskNounPair]:
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
        pairs.append(MaskNounPair(noun, 0.9, (0, 0, width, height), raw, mask))
    return pairs


def write_pairs(folder: Path, count: int = 14, shard_size: int = 8) -> Path:
    """A folder with ``count`` pairs as a table and as shards."""
    rows = write_crops(folder, "crops/0", random_pairs(count), FILL, "ground-truth", "0")
    write_table(folder, rows)
    write_shards(folder, rows, shard_size)
    return folder


def write_clip(path: Path, depth: int = 0, seed: int = 1) -> Path:
    """A random CLIP of 16-pixel input, with or without mask prompts."""
    torch.manual_seed(seed)
    model = build_untrained_clip(ARCHITECTURE, depth)
    torch.save({"state_dict": model.state_dict(), "model_cfg": ARCHITECTURE}, path)
    return path


def write_embedded_clip(path: Path) -> Path:
    """The CLIP of the embedded checkpoint, as pretrain.py writes one."""
    weights, _ = read_clip_file("resources/ovseg_tiny.pth")
    config = architecture_of_name("ovseg-tiny-clip")
    config["text_cfg"]["vocab_size"] = len(weights["token_embedding.weight"])
    torch.save({"state_dict": weights, "model_cfg": config}, path)
    return path
