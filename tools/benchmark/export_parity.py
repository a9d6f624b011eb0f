#!/usr/bin/env python3
"""Whether exported models of the published size give PyTorch's labels, with random weights.

    python tools/benchmark/export_parity.py --config-file configs/ovseg_R101c_vitB_bs32_120k.yaml
    python tools/benchmark/export_parity.py --config-file configs/ovseg_swinB_vitL_bs32_120k.yaml

Nothing is fetched: architectures are the published ones, weights are random. Images of three sizes
are segmented by 1, 2 and 150 classes, with the config's mask threshold, with one that no mask
exceeds and one that a single mask exceeds, and all of them in one batch. Printed is the share of
pixels with the same label; the exit code is 1 where one of them is below 99.9 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import numpy as np
import torch
from detectron2.modeling import build_model

from ovseg import Predictor
from ovseg.config import setup_cfg
from ovseg.errors import Parser, cli_errors
from ovseg.export.write import export_model
from ovseg.runtime import Predictor as Exported

LEAST = 0.999


def random_model(cfg: Any) -> Any:
    """A model whose masks and classes differ from query to query and place to place."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias_table") or "mask_embedding" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    head = model.sem_seg_head.predictor
    with torch.no_grad():  # queries that are alike would all have the same mask
        head.query_embed.weight.mul_(4)
        head.mask_embed.layers[-1].weight.mul_(20)
        head.mask_embed.layers[-1].bias.zero_()
    return model


@torch.no_grad()
def centre_features(predictor: Predictor, image: np.ndarray) -> None:
    """Take away what CLIP's features of an image's crops have in common.

    Random weights give all crops nearly the same feature, and so a single label. What is left when
    the mean is gone differs, and rounding counts for more in it than with trained weights.
    """
    visual: Any = predictor.model.clip_adapter.clip_model.visual
    found: list[torch.Tensor] = []
    hook = visual.ln_post.register_forward_hook(lambda *call: found.append(call[2]))
    predictor.encode(image)
    hook.remove()
    visual.ln_post.bias.sub_(torch.cat(found).flatten(0, -2).mean(dim=0))


def images() -> list[np.ndarray]:
    """Smooth random images of three sizes, uint8 RGB."""
    torch.manual_seed(1)
    made = []
    for size in ((240, 320), (300, 200), (128, 400)):
        coarse = 255 * torch.rand(1, 3, size[0] // 16, size[1] // 16)
        large = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")[0]
        made.append(large.clamp(0, 255).byte().permute(1, 2, 0).numpy())
    return made


def compare(name: str, found: Any, expected: Any) -> bool:
    """Print one line; whether enough labels are the same."""
    same = float((found.labels == expected.labels).mean())
    labels = len(np.unique(expected.labels))
    print(f"{name:44s} {100 * same:8.4f} %  ({labels} labels)", flush=True)
    return same >= LEAST


def run(args: argparse.Namespace, folder: Path) -> bool:
    """Print the comparison; whether all of it holds."""
    short = ["INPUT.MIN_SIZE_TEST", str(args.short_side)]
    queries = ["MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", str(args.queries)]
    cfg = setup_cfg(args.config_file, ["MODEL.DEVICE", "cpu", *short, *queries])
    model = random_model(cfg)
    predictor, pictures = Predictor(cfg, model), images()
    centre_features(predictor, pictures[0])
    began = time.perf_counter()
    export_model(cfg, model, folder / "exported", progress=lambda step: print(step, flush=True))
    size = sum(path.stat().st_size for path in (folder / "exported").iterdir())
    print(f"exported in {time.perf_counter() - began:.0f} s: {size / 1e6:.0f} MB", flush=True)
    exported = Exported(folder / "exported")
    words = [f"{kind} {number}" for number in range(50) for kind in ("dog", "chair", "blue sky")]
    holds = []
    for image in pictures:
        found, expected = exported.encode(image), predictor.encode(image)
        place = "x".join(map(str, image.shape[:2]))
        for count in (1, 2, 150):
            both = (each.segment(words[:count]) for each in (found, expected))
            holds.append(compare(f"{place}, {count} classes", *both))
        if image is pictures[0]:
            highest = np.sort(found.regions.masks.max(axis=(1, 2)))
            one = float(highest[-2:].mean())
            for what, threshold in (("no valid mask", 1.0), ("one valid mask", one)):
                both = (
                    each.segment(words[:20], mask_threshold=threshold) for each in (found, expected)
                )
                holds.append(compare(f"{place}, {what}", *both))
    found_of_all, expected_of_all = (
        list(each.stream(pictures, words[:20], batch_size=3)) for each in (exported, predictor)
    )
    for number in range(len(pictures)):
        name = f"image {number} of 3 in one batch"
        holds.append(compare(name, found_of_all[number], expected_of_all[number]))
    return all(holds)


def main() -> None:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--queries", type=int, default=100, help="default: 100")
    parser.add_argument("--short-side", type=int, default=160, help="of images (default: 160)")
    with cli_errors():
        args = parser.parse_args()
        with TemporaryDirectory() as folder:
            holds = run(args, Path(folder))
    sys.exit(not holds)


if __name__ == "__main__":
    main()
