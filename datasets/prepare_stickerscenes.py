"""Make StickerScenes: fetch the artwork with npm, render it, and compose every split.

    python datasets/prepare_stickerscenes.py             # all that OVSeg needs: 12 minutes, 2 cores
    python datasets/prepare_stickerscenes.py --only seg --scale 0.02   # a quick look

Needs npm (once, for the artwork) and ``pip install resvg_py``. The result is the same on every
machine and with any number of workers; a stopped run continues where it was.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from pathlib import Path

from ovseg.data.stickerscenes import object_concepts
from ovseg.errors import Parser, UserError, cli_errors
from stickerscenes.generate import (
    CLIP_SPLIT,
    FURTHER_SPLITS,
    SEGMENTATION_SPLITS,
    write_clip_split,
    write_segmentation_split,
)
from stickerscenes.sprites import build_sprites

logger = logging.getLogger("prepare_stickerscenes")
PARTS = {
    "clip": ["clip_train"],
    "seg": [name for name in SEGMENTATION_SPLITS if name not in FURTHER_SPLITS],
    **{name: [name] for name in SEGMENTATION_SPLITS},
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    # worker processes import this file, and need not wait for detectron2
    from ovseg.data.splits import data_root

    parser = Parser(__doc__)
    parser.add_argument(
        "--root",
        type=Path,
        default=data_root(),
        help="folder of data sets; the result is in its folder stickerscenes "
        "(default: $DETECTRON2_DATASETS, else ./datasets)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(PARTS),
        help="make these parts only (default: all but more and train_all, which only some of the "
        "methods of docs/methods.md need)",
    )
    parser.add_argument(
        "--num-workers", type=int, default=os.cpu_count() or 1, help="processes (default: cores)"
    )
    parser.add_argument("--overwrite", action="store_true", help="draw again what is there")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="fraction of the scenes, for quick tries"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Make what the command line asks for.

    Raises:
        UserError: an argument cannot be used, or the artwork cannot be had.
    """
    options = parse_arguments(arguments)
    if not 0 < options.scale <= 1:
        raise UserError(f"--scale {options.scale} is not in (0, 1]: 1 makes the whole data set")
    if options.num_workers < 1:
        raise UserError(f"--num-workers {options.num_workers} is less than 1")
    root = options.root / "stickerscenes"
    wanted = {name for part in options.only or ["clip", "seg"] for name in PARTS[part]}
    started = time.monotonic()
    book = build_sprites(root / "artwork", object_concepts(), options.num_workers)
    logger.info("%d drawings of %d objects", len(book), len(object_concepts()))
    for split in [CLIP_SPLIT, *SEGMENTATION_SPLITS.values()]:
        if split.name not in wanted:
            continue
        count = max(1, round(split.count * options.scale))
        common = (root, book, count, options.num_workers, options.overwrite)
        if split is CLIP_SPLIT:
            drawn = write_clip_split(*common)
        else:
            drawn = write_segmentation_split(split, *common)
        logger.info("%s: %d scenes, %d of them newly drawn", split.name, count, drawn)
    logger.info("done in %.0f s: %s", time.monotonic() - started, root)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with cli_errors():
        main()
