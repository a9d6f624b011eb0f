"""Find the best templates of each class in one pass over images, without their ground truth.

    ovseg templates --config-file configs/ovseg_tiny.yaml --output output/templates \\
        MODEL.WEIGHTS ovseg://tiny DATASETS.TEST stickerscenes_dev

The best templates of a class are those with which CLIP is most certain of the crops that it gives
the class to. They are written to best_templates.json in --output, which
MODEL.CLIP_ADAPTER.BEST_TEMPLATES takes. A pass that was interrupted goes on where it was when it is
started again with the same command.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.options import check_command, evaluation_config, evaluation_parser
from ovseg.config.first_look import check_output_folder
from ovseg.engine.process_options import several_processes
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.utils.counting import counted
from ovseg.utils.io import write_json

if TYPE_CHECKING:
    from detectron2.config import CfgNode

FILE = "best_templates.json"


def build_parser() -> Parser:
    """The options of an evaluation, and how many templates."""
    parser = evaluation_parser(__doc__, output="output/templates")
    parser.add_argument(
        "--number", type=int, default=4, metavar="N", help="templates of each class; default: 4"
    )
    return parser


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """One process's work."""
    from detectron2.utils import comm
    from detectron2.utils.logger import setup_logger

    from ovseg.data.own.registration import register_custom
    from ovseg.engine.template_choice import choose_templates
    from ovseg.engine.trainer import load_model
    from ovseg.utils.images import allow_megapixels

    register_custom(cfg.DATASETS.CUSTOM)  # again: this may be a new process
    allow_megapixels(cfg.INPUT.MAX_MEGAPIXELS)
    output = Path(args.output)
    setup_logger(str(output), distributed_rank=comm.get_rank(), name="ovseg")
    unfinished = output / "unfinished"
    found = choose_templates(cfg, load_model(cfg), args.number, unfinished)
    if found is None:
        return
    write_json(output / FILE, found)
    shutil.rmtree(unfinished)
    words, images = counted(len(found["best"]), "word"), counted(found["images"], "image")
    print(
        f"Best templates of {words}, from {images}. Use them by\n\n"
        f"    MODEL.CLIP_ADAPTER.BEST_TEMPLATES {output / FILE}"
    )
    if found["left out"]:
        said = counted(len(found["left out"]), "image", "was/were")
        print(f"error: {said} left out; {FILE} says why", file=sys.stderr)
        raise SystemExit(1)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with cli_errors(), several_processes():
        args = build_parser().parse_args(argv)
        if args.number < 1:
            raise UserError(f"--number {args.number} is too small; give 1 or more")
        check_command(args)
        check_output_folder(args.output, "--output")

        from ovseg.engine.processes import plain_errors, start_with_config

        with plain_errors():
            cfg = evaluation_config(args)
            if cfg.MODEL.CLIP_ADAPTER.BEST_TEMPLATES:
                raise UserError(
                    "MODEL.CLIP_ADAPTER.BEST_TEMPLATES is set; leave it empty to find new ones"
                )
            if cfg.MODEL.CLIP_ADAPTER.TEXT_TEMPLATES == "learned":
                raise UserError(
                    "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES learned has no templates to choose from; "
                    "give vild or imagenet"
                )
            start_with_config(run, cfg, args, output=args.output)
