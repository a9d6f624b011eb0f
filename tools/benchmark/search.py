#!/usr/bin/env python3
"""What a search costs, as a multiple of one evaluation of the same images, taken in one run.

    python tools/benchmark/search.py --images 100

Image after image is evaluated as train_net.py --eval-only does it, and searched over the published
grid of 3 thresholds and 5 weights and over 9 weights at one threshold, in turn; reading the image
counts each time. Runs the embedded model on the data set that comes with the repository.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from ovseg.cli.number_lists import parse_values
from ovseg.config import setup_cfg
from ovseg.data.datasets import load_dataset
from ovseg.data.loader import Example
from ovseg.data.proposal_files import evaluation_mapper
from ovseg.engine.ensemble_search import GridCounter
from ovseg.engine.trainer import load_model
from ovseg.errors import Parser, cli_errors
from ovseg.evaluation import SemSegEvaluator
from ovseg.evaluation.ensemble_grid import Grid
from ovseg.utils.package_files import config_path

DATASET = "stickerscenes_frozen"
THRESHOLDS, WEIGHTS = "0.35,0.4,0.45", "0.6:0.8:0.05"


def run(images: int) -> None:
    """Print the ratios."""
    cfg = setup_cfg(config_path("ovseg_tiny_demo.yaml"), ["DATASETS.TEST", DATASET])
    model, mapper = load_model(cfg), evaluation_mapper(cfg, DATASET)
    evaluator = SemSegEvaluator(DATASET)
    threshold = (cfg.MODEL.CLIP_ADAPTER.MASK_THR,)
    searches = {
        "3 x 5": GridCounter(
            model, DATASET, Grid(parse_values(THRESHOLDS, ""), parse_values(WEIGHTS, ""))
        ),
        "1 x 9": GridCounter(
            model, DATASET, Grid(threshold, parse_values("0.1:0.9:0.1", ""))
        ),
    }  # fmt: skip

    def evaluate(batch: list[Example]) -> None:
        evaluator.process(batch, model(batch))

    work: dict[str, Callable[[list[Example]], object]] = {"evaluation": evaluate, **searches}
    examples = load_dataset(DATASET)[: images + 1]
    # per kind and image: seconds, and seconds of processor time, which other work does not change
    seconds = np.zeros((len(work), len(examples), 2))
    with torch.inference_mode():
        for place, example in enumerate(examples):
            for kind, function in enumerate(work.values()):
                began = np.array([time.perf_counter(), time.process_time()])
                function([{**mapper(example), "position": place}])
                seconds[kind, place] = [time.perf_counter(), time.process_time()] - began
    total = seconds[:, 1:].sum(axis=1)  # the first image allocates and encodes the words
    print(f"torch {torch.__version__}, {cfg.MODEL.DEVICE}, {torch.get_num_threads()} threads")
    print(f"{len(examples) - 1} images of {DATASET}, embedded model")
    print(f"{'':12s} {'ms/image':>10s} {'ratio':>8s} {'ratio of processor time':>26s}")
    for name, (wall, processor) in zip(work, total, strict=True):
        each = 1000 * wall / (len(examples) - 1)
        ratios = f"{wall / total[0, 0]:8.3f} {processor / total[0, 1]:26.3f}"
        print(f"{name:12s} {each:10.1f} {ratios}")


def main() -> None:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=int, default=100, help="how many (default: 100)")
    with cli_errors():
        run(parser.parse_args().images)


if __name__ == "__main__":
    main()
