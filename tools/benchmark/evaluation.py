#!/usr/bin/env python3
"""What an evaluation adds to the model's own time, taken in one run.

    python tools/benchmark/evaluation.py

The embedded model segments the frozen sample of StickerScenes (186 classes); the evaluator reads
the ground truth, counts, and in the end writes tables and chart. The model is small and so are its
pictures: a second table counts label maps of 150 and 847 classes at the size of photographs, where
a model takes far longer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from PIL import Image
from tabulate import tabulate

from ovseg.config import setup_cfg
from ovseg.data.class_lists import load_class_list
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.trainer import Trainer
from ovseg.errors import Parser, cli_errors
from ovseg.evaluation import SemSegEvaluator

ROOT = Path(__file__).resolve().parents[2]
DATASET = "stickerscenes_frozen"


def measure_embedded(images: int, pictures: int, folder: Path) -> list[object]:
    """A row: milliseconds an image of model and evaluator, and the share of the latter."""
    opts = ["DATASETS.TEST", DATASET, "OUTPUT_DIR", str(folder), "DATALOADER.NUM_WORKERS", "0"]
    cfg = setup_cfg(ROOT / "configs/ovseg_tiny.yaml", [*opts, "TEST.VISUALIZE", str(pictures)])
    model = Trainer.build_model(cfg).eval()
    OVSegCheckpointer(model, cfg=cfg, trained=True).load(str(ROOT / "resources/ovseg_tiny.pth"))
    evaluator = Trainer.build_evaluator(cfg, DATASET)
    segmenting = counting = 0.0
    done = 0
    for batch in Trainer.build_test_loader(cfg, DATASET):
        began = time.perf_counter()
        with torch.inference_mode():
            outputs = model(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        between = time.perf_counter()
        evaluator.process(batch, outputs)
        if done:  # the first encodes the words
            segmenting += between - began
            counting += time.perf_counter() - between
        done += 1
        if done > images:
            break
    began = time.perf_counter()
    evaluator.evaluate()
    ending = time.perf_counter() - began
    count = done - 1
    name = f"{len(evaluator.class_names)} classes, {pictures} + {pictures} pictures"
    percent = 100 * counting / segmenting
    return [name, count, 1e3 * segmenting / count, 1e3 * counting / count, percent, ending]


def measure_counting(classes: int, repeat: int, folder: Path) -> list[object]:
    """A row: milliseconds to read and count one label map of 683 x 512 pixels."""
    rng = np.random.default_rng(0)
    name = f"benchmark_{classes}"
    words = list(load_class_list("ade20k_full_847").names)[:classes]
    ignored = 65535
    MetadataCatalog.get(name).set(stuff_classes=words, ignore_label=ignored)
    # regions of some ten pixels, as compressible as real label maps are
    truth = rng.integers(0, classes, (64, 86)).repeat(8, 0).repeat(8, 1)[:512, :683]
    file = folder / f"{name}.tif"
    Image.fromarray(truth.astype(np.uint16)).save(file)
    labels = torch.from_numpy(np.where(rng.random(truth.shape) < 0.7, truth, 0)).long()
    evaluator = SemSegEvaluator(name)
    example = {"sem_seg_file_name": str(file)}
    evaluator.process([example], [{"labels": labels}])
    began = time.perf_counter()
    for _ in range(repeat):
        evaluator.process([example], [{"labels": labels}])
    return [f"{classes} classes", 1e3 * (time.perf_counter() - began) / repeat]


def run(args: argparse.Namespace) -> None:
    """Print both tables."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure_embedded(args.images, count, Path(folder)) for count in (0, 5)]
        headers = ["embedded model", "images", "model ms", "evaluator ms", "%", "end s"]
        print(tabulate(rows, headers=headers, floatfmt=".2f", tablefmt="pipe"))
        rows = [measure_counting(classes, args.repeat, Path(folder)) for classes in (150, 847)]
        print()
        headers = ["label maps of 683 x 512", "evaluator ms"]
        print(tabulate(rows, headers=headers, floatfmt=".2f", tablefmt="pipe"))


def main() -> None:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=int, default=50, help="of the sample (default: 50)")
    parser.add_argument("--repeat", type=int, default=20, help="label maps (default: 20)")
    with cli_errors():
        run(parser.parse_args())


if __name__ == "__main__":
    main()
