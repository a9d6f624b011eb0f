#!/usr/bin/env python3
"""What ``MODEL.PRECISION bf16`` changes, and what it costs or saves, taken in one run.

    python tools/benchmark/precision.py

The embedded model segments the frozen sample of StickerScenes in both precisions. Printed are the
share of pixels whose label stays the same, both mIoUs and the ratio of the times, fp32 over bf16:
above 1 where bf16 is faster, below on processors that only emulate it.
"""

from __future__ import annotations

import argparse
import platform
import time

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import torch
from torch.backends.mkldnn import is_available

from ovseg.config import setup_cfg
from ovseg.data.datasets import dataset_classes, ignore_label, load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.mapper import EvaluationMapper
from ovseg.engine.trainer import load_model
from ovseg.errors import Parser, cli_errors
from ovseg.evaluation import new_confusion, scores, update_confusion

PRECISIONS = ("fp32", "bf16")


def hardware() -> str:
    """What the figures were taken on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {torch.get_num_threads()} threads, oneDNN {is_available()}"


@torch.inference_mode()
def run(args: argparse.Namespace) -> None:
    """Print the comparison."""
    cfg = setup_cfg(args.config_file, ["MODEL.WEIGHTS", args.weights])
    model = load_model(cfg)
    mapper = EvaluationMapper(cfg, args.dataset)
    classes, ignored = dataset_classes([args.dataset]), ignore_label(args.dataset)
    examples = load_dataset(args.dataset)[: args.images]
    confusions = {name: new_confusion(len(classes)) for name in PRECISIONS}
    labels: dict[str, list[torch.Tensor]] = {name: [] for name in PRECISIONS}
    seconds = dict.fromkeys(PRECISIONS, 0.0)
    for name in PRECISIONS:
        model.precision = name
        for place, example in enumerate(examples):
            inputs = {**mapper(example), "output": "labels"}
            if place == 0:
                model([inputs])  # encodes the words
            began = time.perf_counter()
            found = model([inputs])[0]["labels"].cpu()
            seconds[name] += time.perf_counter() - began
            labels[name].append(found)
            truth = read_truth(example)
            update_confusion(confusions[name], found.numpy(), truth, ignored)
    pixels = sum(found.numel() for found in labels["fp32"])
    pairs = zip(labels["fp32"], labels["bf16"], strict=True)
    same = sum(int((full == half).sum()) for full, half in pairs)
    print(f"{args.dataset}, {len(examples)} images; torch {torch.__version__}; {hardware()}")
    print(f"same labels: {100 * same / pixels:.2f} % of the pixels")
    for name in PRECISIONS:
        print(f"{name}: mIoU {100 * scores(confusions[name]).miou:.2f}, {seconds[name]:.1f} s")
    print(f"fp32 / bf16: {seconds['fp32'] / seconds['bf16']:.2f}")


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
