"""A small CLIP and its pairs, and the command line that adapts it."""

from __future__ import annotations

import json

import torch
from clip_pairs import write_clip, write_pairs


def write_world(folder):
    """A folder with pairs and a CLIP without mask prompts."""
    write_pairs(folder / "pairs")
    write_clip(folder / "clip.pt")
    return folder


def command(world, output, *extra):
    given = {
        "--clip": world / "clip.pt", "--train-data": world / "pairs", "--output": output,
        "--steps": 3, "--warmup": 1, "--batch-size": 6, "--lr": 1e-3, "--prompt-lr": 0.02,
        "--device": "cpu",
    }  # fmt: skip
    given.update(zip(extra[::2], extra[1::2], strict=True))
    words = [str(word) for pair in given.items() for word in pair]
    return [word for word in words if word != "None"]


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def history(output):
    return json.loads(output.with_name(f"{output.stem}_history.json").read_text())


def settled(key, weight):
    """A weight without the bias of attention's keys, which nothing depends on.

    Its gradient is rounding alone, and AdamW makes steps of any size out of that.
    """
    if key.endswith("in_proj_bias"):
        width = len(weight) // 3
        return torch.cat([weight[:width], weight[2 * width :]])
    return weight
