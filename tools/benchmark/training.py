#!/usr/bin/env python3
"""What training takes besides the model's own forward, backward and optimizer, in one run.

    python tools/benchmark/training.py
    python tools/benchmark/training.py --steps 6 --workers 2 --opts INPUT.CROP.SIZE "(256,256)"

R101c with random weights, two images of 512 x 512 of the frozen sample, as train_net.py trains it.
In turns an iteration of the trainer, which loads, augments, logs and counts too, and forward,
backward and step alone with a batch that is there. Printed are the medians and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

from detectron2.utils.events import EventStorage
from tabulate import tabulate

from ovseg.config import setup_cfg
from ovseg.engine.trainer import Trainer
from ovseg.errors import Parser, cli_errors

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
from tools.benchmark.speed import hardware


def bare_step(trainer: Any, batch: list[dict[str, Any]]) -> None:
    """Forward, backward and optimizer with a batch that is there."""
    losses = trainer.model(batch)
    trainer.optimizer.zero_grad()
    sum(losses.values()).backward()
    trainer.optimizer.step()


def whole_step(trainer: Any) -> None:
    """An iteration of the trainer, with its hooks."""
    trainer.before_step()
    trainer.run_step()
    trainer.after_step()
    trainer.iter += 1
    trainer.storage.step()


def seconds(work: Callable[[], None]) -> float:
    """On the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(args: argparse.Namespace, folder: str) -> None:
    """Print the comparison."""
    opts = [
        "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.CLIP_ADAPTER.CLIP_PRETRAINED", "",
        "DATASETS.TRAIN", "stickerscenes_frozen,", "DATASETS.TEST", "()",
        "SOLVER.IMS_PER_BATCH", "2", "INPUT.CROP.SIZE", "(512,512)",
        "DATALOADER.NUM_WORKERS", str(args.workers), "OUTPUT_DIR", folder, *args.opts,
    ]  # fmt: skip
    trainer: Any = Trainer(setup_cfg(args.config_file, opts))
    trainer.model.train()
    batch = next(iter(trainer._trainer._data_loader_iter))
    found: dict[str, list[float]] = {"trainer": [], "bare": []}
    with EventStorage() as trainer.storage:
        trainer.iter = 0
        trainer.before_train()
        whole_step(trainer)  # allocates, encodes the class names, starts the loading processes
        for _ in range(args.steps):
            found["trainer"].append(seconds(lambda: whole_step(trainer)))
            found["bare"].append(seconds(lambda: bare_step(trainer, batch)))
    medians = {name: statistics.median(values) for name, values in found.items()}
    rows = [[name, value, value / medians["bare"]] for name, value in medians.items()]
    print(tabulate(rows, ["step", "seconds", "ratio"], tablefmt="pipe", floatfmt=".3f"))
    print(f"{args.steps} turns; {args.workers} loading processes; {hardware()}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--config-file", default="configs/ovseg_R101c_vitB_bs32_120k.yaml")
    parser.add_argument("--steps", type=int, default=4, help="turns (default: 4)")
    parser.add_argument("--workers", type=int, default=1, help="loading processes (default: 1)")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config overrides")
    with cli_errors(), tempfile.TemporaryDirectory() as folder:
        measure(parser.parse_args(arguments), folder)


if __name__ == "__main__":
    main()
