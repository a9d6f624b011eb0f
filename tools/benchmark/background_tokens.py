#!/usr/bin/env python3
"""How many of the patches of masked crops show nothing but background.

    python tools/benchmark/background_tokens.py --dataset stickerscenes_test

The embedded model proposes; crops are cut as for CLIP, at the grids of the embedded CLIP (8 x 8),
ViT-B/16 (14 x 14) and ViT-L/14 (16 x 16). Printed are the share of foreground patches, those with a
pixel of the mask, and how many times fewer tokens there would be without the others.
"""

from __future__ import annotations

import argparse

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import torch
import torch.nn.functional as F
from tabulate import tabulate
from tqdm import tqdm

from ovseg.config import setup_cfg
from ovseg.data.datasets import load_dataset
from ovseg.data.mapper import EvaluationMapper
from ovseg.engine.trainer import load_model
from ovseg.errors import Parser, cli_errors
from ovseg.modeling.crops import cut_crops

#: side of the grid and of a patch
GRIDS = ((8, 8), (14, 16), (16, 14))


@torch.inference_mode()
def run(args: argparse.Namespace) -> None:
    """Print the shares, of all crops and of those that can show."""
    cfg = setup_cfg(args.config_file, ["MODEL.WEIGHTS", args.weights])
    model = load_model(cfg)
    mapper = EvaluationMapper(cfg, args.dataset)
    examples = load_dataset(args.dataset)[: args.images]
    found: dict[tuple[int, str], list[torch.Tensor]] = {}
    for example in tqdm(examples, desc=args.dataset, disable=None):
        inputs = mapper(example)
        regions = model.propose([inputs])[0]
        probs = model.classify_queries(regions, model.text(model.vocabulary(inputs)))
        assert probs is not None
        strength = probs.sum(dim=1) ** (1 - model.clip_ensemble_weight)
        choice = model.crop_choice
        visible = choice.areas(regions.masks, strength) > choice.min_area
        for side, patch in GRIDS:
            crops = cut_crops(
                regions.image, regions.masks, size=(side * patch, side * patch),
                threshold=model.mask_threshold, fill=[0, 0, 0],
            )  # fmt: skip
            shares = (F.max_pool2d(crops.masks, patch) > 0).float().flatten(1).mean(dim=1)
            found.setdefault((side, "all"), []).append(shares)
            found.setdefault((side, "that can show"), []).append(shares[visible[crops.valid]])
    rows = []
    for (side, kind), parts in found.items():
        share = float(torch.cat(parts).mean())
        tokens = side * side
        fewer = (tokens + 1) / (tokens * share + 1)
        rows.append([f"{side} x {side}", kind, len(torch.cat(parts)), 100 * share, fewer])
    header = ["grid", "crops", "number", "foreground patches, %", "fewer tokens, times"]
    print(tabulate(rows, header, tablefmt="pipe", floatfmt=".2f"))


def main() -> None:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--config-file", default="configs/ovseg_tiny.yaml")
    parser.add_argument("--weights", default="ovseg://ovseg_tiny.pth")
    parser.add_argument("--dataset", default="stickerscenes_frozen")
    parser.add_argument("--images", type=int, default=100, help="the first so many (default: 100)")
    with cli_errors():
        run(parser.parse_args())


if __name__ == "__main__":
    main()
