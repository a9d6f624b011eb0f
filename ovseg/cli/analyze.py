"""Find out where a model loses its score: in its masks or in its classes.

    ovseg analyze --config-file configs/ovseg_tiny.yaml --output output/analysis \\
        MODEL.WEIGHTS ovseg://tiny DATASETS.TEST stickerscenes_frozen

It compares true regions with CLIP's classes (on masked and on unmasked crops), predicted masks with
true classes, MaskFormer alone, CLIP alone and the ensemble. It also reports the recall of the
proposals over IoU and the most confused classes. For each data set the folder of its name in
--output has analysis.json, analysis.md, analysis.png and drawings of the worst images. An analysis
that was interrupted goes on where it was when it is started again with the same command.
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

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def build_parser() -> Parser:
    """The options of an evaluation, and the analysis's."""
    parser = evaluation_parser(__doc__, output="output/analysis")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument(
        "--worst", type=int, default=10, metavar="N", help="draw the N worst images; default: 10"
    )
    return parser


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """One process's work."""
    from detectron2.utils import comm
    from detectron2.utils.logger import setup_logger

    from ovseg.data.own.registration import register_custom
    from ovseg.engine.oracle_analysis import analyze_dataset
    from ovseg.engine.trainer import load_model
    from ovseg.utils.images import allow_megapixels

    register_custom(cfg.DATASETS.CUSTOM)  # again: this may be a new process
    allow_megapixels(cfg.INPUT.MAX_MEGAPIXELS)
    output = Path(args.output)
    setup_logger(str(output), distributed_rank=comm.get_rank(), name="ovseg")
    model = load_model(cfg)
    failed = 0
    for name in cfg.DATASETS.TEST:
        folder = output / name
        found = analyze_dataset(cfg, model, name, folder, limit=args.limit, worst=args.worst)
        if found is not None:
            found.write(folder)
            failed += len(found.failures)
            print(f"\n{found.text()}\nWritten to {folder}")
    if not comm.is_main_process():
        return
    for name in cfg.DATASETS.TEST:
        shutil.rmtree(output / name / "unfinished")
    if failed:
        said = counted(failed, "image", "was/were")
        print(f"error: {said} left out; analysis.json says why", file=sys.stderr)
        raise SystemExit(1)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with cli_errors(), several_processes():
        args = build_parser().parse_args(argv)
        for option, value in (("--limit", args.limit), ("--worst", args.worst)):
            if value is not None and value < (option == "--limit"):
                least = int(option == "--limit")
                raise UserError(f"{option} {value} is too small; give {least} or more")
        check_command(args)
        check_output_folder(args.output, "--output")

        from ovseg.engine.checks import check_truth
        from ovseg.engine.processes import plain_errors, start_with_config

        with plain_errors():
            # here once, before processes start, so that a mistake is reported once
            cfg = evaluation_config(args)
            check_truth(cfg.DATASETS.TEST, limit=args.limit)
            start_with_config(run, cfg, args, output=args.output)
