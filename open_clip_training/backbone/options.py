"""The command line of pretrain_backbone.py."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from open_clip_training.common.options import SEEDS, add_opts, add_run, check_dataset, check_ranges
from ovseg.config.first_look import first_look
from ovseg.errors import Parser, UserError

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("steps", "batch_size", "size"), (1, math.inf)),
    **dict.fromkeys(("warmup", "eval_every", "eval_images", "workers"), (0, math.inf)),
    **dict.fromkeys(("lr", "weight_decay"), (0, math.inf)),
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
    add = parser.add_argument
    add("--config-file", metavar="FILE", default="configs/ovseg_tiny.yaml",
        help="model config: its backbone is trained, its CLIP embeds the class names")  # fmt: skip
    add("--train-data", metavar="NAME", default="stickerscenes_train",
        help="registered data set with ground truth, or the yaml file of your own")  # fmt: skip
    add("--eval-data", metavar="NAME", default="stickerscenes_dev",
        help="data set to measure on; its first classes are --train-data's; '': none")  # fmt: skip
    add("--output", type=Path, default=Path("output/backbone_tiny/backbone.pth"),
        help="file to write, for MODEL.WEIGHTS")  # fmt: skip
    add("--feature", metavar="NAME",
        help="map of the backbone (default: MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE)")  # fmt: skip
    add("--size", type=int, default=96, help="side of the images in pixels (default: 96)")
    add("--steps", type=int, default=4000, help="default: 4000")
    add("--batch-size", type=int, default=32, help="images a step (default: 32)")
    add("--warmup", type=int, default=100, help="steps of warm-up (default: 100)")
    add("--lr", type=float, default=1.5e-3, help="learning rate (default: 0.0015)")
    add("--weight-decay", type=float, default=0.05, help="default: 0.05")
    add(
        "--workers",
        type=int,
        default=1,
        help="processes that load images; 0: none besides this one",
    )
    add(
        "--eval-every", type=int, default=200, help="steps between measurements; 0: only at the end"
    )
    add("--eval-images", type=int, default=200, help="images to measure on; 0: all")
    add_run(parser)
    add_opts(parser, "opts")
    options = parser.parse_args(arguments)
    check_ranges(options, RANGES)
    if options.warmup >= options.steps:
        raise UserError(
            f"--warmup {options.warmup} must be less than the {options.steps} steps; give a smaller"
        )
    first_look(options.config_file, options.opts)
    for name in ("train_data", "eval_data"):
        check_dataset(f"--{name.replace('_', '-')}", getattr(options, name) or None)
    return options
