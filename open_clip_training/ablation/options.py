"""The command line of ablations.py."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

from open_clip_training.common.options import add_opts, check_ranges
from ovseg.errors import Parser


def parse_arguments(
    arguments: Sequence[str] | None = None, description: str | None = None
) -> argparse.Namespace:
    """Read the command line; ``description`` is the script's, for ``--help``.

    Raises:
        UserError: it cannot be used.
    """
    parser = Parser(description)
    add = parser.add_argument
    add("--config-file", default="configs/ovseg_tiny.yaml")
    add("--weights", default="output/ovseg_tiny/model_final.pth",
        help="trained OVSeg that proposes masks, with the original CLIP")  # fmt: skip
    add("--clip", type=Path, default=Path("output/clip_tiny/clip.pt"), help="the CLIP to adapt")
    add("--output", type=Path, default=Path("output/ablations"))
    add("--mine-images", type=int, default=5000, help="images of train to mine (default: 5000)")
    add("--dev-images", type=int, default=80, help="images of dev, on which the ensemble "
        "weight is chosen (default: 80)")  # fmt: skip
    add("--test-images", type=int, default=160, help="images of test, on which scores "
        "are reported (default: 160)")  # fmt: skip
    add("--steps", type=int, default=60, help="of one adaptation (default: 60)")
    add("--batch-size", type=int, default=128)
    add("--lr", type=float, default=1e-4, help="of fine-tuning")
    add("--prompt-lr", type=float, default=0.1)
    add("--seeds", type=int, default=3, help="runs of each row (default: 3)")
    add("--processes", type=int, default=min(os.cpu_count() or 1, 4))
    add("--quick", action="store_true", help="try it with a few images and steps")
    add_opts(parser)
    options = parser.parse_args(arguments)
    at_least_1 = ("mine_images", "dev_images", "test_images", "steps", "seeds", "processes")
    check_ranges(options, {
        **dict.fromkeys(at_least_1, (1, math.inf)),
        **dict.fromkeys(("lr", "prompt_lr"), (0, math.inf)),
        "batch_size": (2, math.inf),
    })  # fmt: skip
    if options.quick:
        options.mine_images, options.dev_images, options.test_images = 12, 3, 4
        options.steps, options.batch_size, options.seeds = 2, 8, 1
    return options
