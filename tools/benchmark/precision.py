#!/usr/bin/env python3
"""What each faster mode changes, and what it saves, taken in one run.

    python tools/benchmark/precision.py --modes exact fast bf16 int8

The embedded model segments the frozen sample of StickerScenes in each mode, image by image in
turns. Printed are the share of pixels whose label is that of the first mode, the mIoU of all, seen
and unseen classes, and how many times as fast as the first mode it is.

A mode is a name of ``--speed``, a ``MODEL.PRECISION``, ``backbone-`` with a precision for the
backbone too, or several of them: ``fast+int8``.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from tabulate import tabulate
from tqdm import tqdm

from ovseg.config import setup_cfg
from ovseg.config.speed import SPEEDS, speed_opts
from ovseg.data.datasets import dataset_classes, ignore_label, load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.mapper import EvaluationMapper
from ovseg.engine.trainer import load_model
from ovseg.errors import Parser, cli_errors
from ovseg.evaluation import new_confusion, scores, update_confusion
from ovseg.evaluation.confusion import group_miou
from ovseg.utils.hardware import processor

DEFAULT = ("exact", "bf16", "fp16", "int8", "backbone-bf16", "backbone-fp16")


def mode_opts(mode: str) -> list[str]:
    """The config overrides of a mode, see above."""
    opts: list[str] = []
    for part in mode.split("+"):
        precision = part.removeprefix("backbone-")
        if part in SPEEDS:
            opts += speed_opts(part)
        else:
            opts += ["MODEL.PRECISION", precision]
        if precision != part:
            opts += ["MODEL.PRECISION_BACKBONE", precision]
    return opts


def hardware() -> str:
    """What figures are taken on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()[0]
    return f"{device}, {platform.machine()}, {torch.get_num_threads()} threads"


def mious(confusion: np.ndarray, dataset: str) -> list[float]:
    """Percent of all, seen and unseen classes."""
    found = scores(confusion)
    groups = group_miou(found, getattr(MetadataCatalog.get(dataset), "class_groups", {}))
    names = ("seen", "unseen")
    return [100 * value for value in (found.miou, *(groups.get(name, np.nan) for name in names))]


@torch.inference_mode()
def compare(modes: Sequence[str], config: str, weights: str, dataset: str, images: int) -> None:
    """Print the comparison."""
    models = {
        mode: load_model(setup_cfg(config, ["MODEL.WEIGHTS", weights, *mode_opts(mode)]))
        for mode in modes
    }
    mapper = EvaluationMapper(setup_cfg(config), dataset)
    count, ignored = len(dataset_classes([dataset])), ignore_label(dataset)
    examples = load_dataset(dataset)[:images]
    confusions = {mode: new_confusion(count) for mode in modes}
    seconds, same = dict.fromkeys(modes, 0.0), dict.fromkeys(modes, 0)
    pixels = 0
    for place, example in enumerate(tqdm(examples, unit="image", disable=None)):
        inputs = {**mapper(example), "output": "labels"}
        truth = read_truth(example)
        pixels += truth.size
        labels: dict[str, torch.Tensor] = {}
        for mode, model in models.items():
            if place == 0:
                model([inputs])  # encodes the words, and makes copies of CLIP
            began = time.perf_counter()
            labels[mode] = model([inputs])[0]["labels"].cpu()
            seconds[mode] += time.perf_counter() - began
            same[mode] += int((labels[mode] == labels[modes[0]]).sum())
            update_confusion(confusions[mode], labels[mode].numpy(), truth, ignored)
    rows = [
        [mode, 100 * same[mode] / pixels, *mious(confusions[mode], dataset),
         seconds[modes[0]] / seconds[mode]]
        for mode in modes
    ]  # fmt: skip
    print(f"{dataset}, {len(examples)} images; torch {torch.__version__}; {hardware()}")
    headers = ["mode", "same labels %", "mIoU", "seen", "unseen", "times as fast"]
    print(tabulate(rows, headers=headers, floatfmt=".2f", tablefmt="pipe"))


def main() -> None:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--modes", nargs="+", default=DEFAULT, help=f"default: {' '.join(DEFAULT)}")
    add("--config-file", default="configs/ovseg_tiny.yaml")
    add("--weights", default="ovseg://ovseg_tiny.pth")
    add("--dataset", default="stickerscenes_frozen")
    add("--images", type=int, default=100, help="the first so many (default: 100)")
    with cli_errors():
        args: argparse.Namespace = parser.parse_args()
        compare(args.modes, args.config_file, args.weights, args.dataset, args.images)


if __name__ == "__main__":
    main()
