"""The command line of pretrain.py."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from open_clip_training.common.options import SEEDS, add_run, check_ranges, check_there
from open_clip_training.pretraining.settings import PretrainingSettings
from ovseg.errors import Parser

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("steps", "batch_size", "save_every"), (1, math.inf)),
    **dict.fromkeys(("eval_every", "eval_pictures"), (0, math.inf)),
    "patch_dropout": (0, 0.99),
    "seed": SEEDS,
}


def parse_arguments(
    arguments: Sequence[str] | None = None, description: str | None = None
) -> argparse.Namespace:
    """Read the command line; ``description`` is the script's, for ``--help``.

    Raises:
        UserError: it cannot be used.
    """
    parser = Parser(description)
    add, default = parser.add_argument, PretrainingSettings()
    add("--root", type=Path, metavar="ROOT",
        help="the StickerScenes folder (default: in the folder of data sets)")  # fmt: skip
    add("--train-data", type=Path, help="captions (default: ROOT/clip_train.csv)")
    add("--output", type=Path, default=Path("output/clip_tiny/clip.pt"))
    add("--model-config", type=Path, help="of open_clip's form (default: ovseg-tiny-clip)")
    add("--steps", type=int, default=default.steps, help=f"default: {default.steps}")
    add("--batch-size", type=int, default=default.batch, help=f"default: {default.batch}")
    add("--patch-dropout", type=float, default=default.patch_dropout,
        help=f"share of patches to drop (default: {default.patch_dropout})")  # fmt: skip
    add_run(parser, default.seed)
    add("--save-every", type=int, default=200, help="steps (default: 200)")
    add("--eval-every", type=int, default=300, help="steps (default: 300); 0: only at the end")
    add("--eval-pictures", type=int, default=300, help="images of dev to measure on; 0: none")
    options = parser.parse_args(arguments)
    check_ranges(options, RANGES)
    there = {
        "root": "datasets/prepare_stickerscenes.py makes it",
        "train_data": "datasets/prepare_stickerscenes.py makes it",
        "model_config": "give a model config of open_clip's form",
    }
    check_there(options, there)
    return options
