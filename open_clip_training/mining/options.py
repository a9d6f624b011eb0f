"""The command line of collect_pairs.py."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from open_clip_training.common.options import add_opts, check_dataset, check_ranges, check_there
from open_clip_training.mining.nouns import SPACY_MODEL
from ovseg.config.first_look import first_look, own_names
from ovseg.engine.process_options import add_processes
from ovseg.errors import Parser, UserError


def parse_arguments(
    arguments: Sequence[str] | None = None, description: str | None = None
) -> argparse.Namespace:
    """Read the command line; ``description`` is the script's, for ``--help``.

    Raises:
        UserError: it cannot be used.
    """
    parser = Parser(description)
    add = parser.add_argument
    add("--config-file", required=True, help="config of the OVSeg that proposes masks")
    add("--captions", type=Path, help="COCO captions (.json), or a CSV with image and caption")
    add("--images", type=Path, help="folder of the images (default: that of --captions)")
    add("--captions-per-image", type=int, default=1, help="1, or 5 for all of COCO's (default: 1)")
    add(
        "--ground-truth",
        metavar="DATASET",
        help="in place of captions: regions of the label maps of a registered data set, or of the "
        "yaml file of your own",
    )
    add("--output", type=Path, required=True, help="folder of the pairs")
    add("--min-area", type=float, default=0.002, help="least share of the image (default: 0.002)")
    add(
        "--min-score",
        type=float,
        default=0.0,
        help="least probability of the noun by CLIP (default: 0)",
    )
    add("--min-objectness", type=float, default=0.0,
        help="leave out proposals that are less probably anything (default: 0)")  # fmt: skip
    add(
        "--adjectives",
        action="store_true",
        help='keep adjectives before a noun: "polar bear", "tiled floor"',
    )
    add("--min-noun-count", type=int, default=1, help="leave out nouns that fewer captions have")
    add("--exclude-nouns", nargs="+", default=[], metavar="NOUN", help="nouns to leave out")
    add("--spacy-model", default=SPACY_MODEL, help="an installed English pipeline of spaCy")
    add(
        "--format",
        choices=("csv", "webdataset"),
        default="csv",
        help="webdataset: write tar files, too",
    )
    add("--limit", type=int, help="take the first N images only")
    add("--seed", type=int, default=0, help="for drawing captions and the contact sheet")
    add_processes(parser, all_gpus=False)
    add_opts(parser)
    options = parser.parse_args(arguments)
    if (options.captions is None) == (options.ground_truth is None):
        raise UserError("give either --captions or --ground-truth")
    at_least_1 = ("captions_per_image", "min_noun_count", "limit")
    shares = ("min_area", "min_score", "min_objectness")
    check_ranges(options, dict.fromkeys(at_least_1, (1, math.inf)) | dict.fromkeys(shares, (0, 1)))
    check_there(options, dict.fromkeys(("captions", "images"), "check the path"))
    given = Path(options.ground_truth or "")
    if given.suffix in {".yaml", ".yml"} and given.exists():
        options.opts = ["DATASETS.CUSTOM", options.ground_truth, *options.opts]
        (options.ground_truth,) = own_names([options.ground_truth])
    cfg = first_look(options.config_file, options.opts)
    if cfg is None or options.ground_truth not in own_names(cfg.DATASETS.CUSTOM):
        check_dataset("--ground-truth", options.ground_truth)
    return options
