"""Find the best ensemble weight and mask threshold in one pass over the data.

    ovseg search --config-file configs/ovseg_swinB_vitL_bs32_120k.yaml \\
        --thresholds 0.35,0.4,0.45 --weights 0.6:0.8:0.05 --output output/search \\
        MODEL.WEIGHTS checkpoint.pth DATASETS.TEST ade20k_sem_seg_val

For every image the proposals are computed once and CLIP's features once for each threshold. The
labels of each weight follow from those. The scores are those of separate evaluations by
train_net.py --eval-only.
search.json, search.md and a heat map for each data set are written to --output. A search that was
interrupted goes on where it was when it is started again with the same command.

To choose and to report on different images: --held-out chooses on every other image of each data
set and reports on the rest; --choose-on names the data sets to choose on, the others are reported.
"""

from __future__ import annotations

import argparse
import functools
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.number_lists import MAX_POINTS, parse_values
from ovseg.cli.options import check_command, evaluation_config, evaluation_parser
from ovseg.config.checks import ONE_WEIGHT
from ovseg.config.first_look import check_output_folder
from ovseg.engine.process_options import several_processes
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.utils.counting import counted

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ovseg.evaluation.ensemble_grid import Grid


def build_parser() -> Parser:
    """The options of an evaluation, and the search's."""
    parser = evaluation_parser(__doc__, output="output/search")
    parser.add_argument(
        "--thresholds",
        metavar="LIST",
        help="mask thresholds: 0.35,0.4,0.45 or first:last:step; default: the config's own",
    )
    parser.add_argument(
        "--weights",
        default="0:1:0.1",
        metavar="LIST",
        help="ensemble weights, 0 with the published meaning 'CLIP alone'; default: 0:1:0.1",
    )
    parser.add_argument(
        "--unseen-weights",
        metavar="LIST",
        help="weights for classes that are none of DATASETS.TRAIN's; --weights are then those of "
        "the others; default: one weight for all classes",
    )
    parser.add_argument(
        "--choose-on",
        default="",
        metavar="NAMES",
        help="data sets of DATASETS.TEST to choose on, separated by commas; default: all",
    )
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="choose on every other image of each data set and report on the rest",
    )
    return parser


def read_grid(args: argparse.Namespace) -> tuple[tuple[float, ...], ...]:
    """Thresholds, none for the config's own, weights, and those of unseen classes.

    Raises:
        UserError: a value that cannot be read, or too many of them.
    """
    lists = {
        "--thresholds": args.thresholds,
        "--weights": args.weights,
        "--unseen-weights": args.unseen_weights,
    }
    values = {
        name: () if text is None else parse_values(text, name) for name, text in lists.items()
    }
    points = math.prod(len(each) or 1 for each in values.values())
    if points > MAX_POINTS:
        given = " and ".join(name for name, text in lists.items() if text is not None)
        raise UserError(f"{given} make {points} points, over {MAX_POINTS}; give fewer values")
    return tuple(values.values())


def setup(args: argparse.Namespace) -> tuple[CfgNode, Grid, list[str]]:
    """Config, grid and names of the data sets to choose on.

    Raises:
        UserError: a mistake in the command.
    """
    from ovseg.evaluation.ensemble_grid import Grid

    thresholds, weights, unseen = read_grid(args)
    cfg = evaluation_config(args)
    if not cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE:
        raise UserError(
            "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE False has no weight to search; set it to True"
        )
    own = cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN
    if unseen and own == ONE_WEIGHT:
        # lets the model know which classes it was trained on; each point has its own weight
        cfg.defrost()
        cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN = unseen[0]
        cfg.freeze()
    elif own != ONE_WEIGHT:
        unseen = unseen or (own,)
    grid = Grid(thresholds or (cfg.MODEL.CLIP_ADAPTER.MASK_THR,), weights, unseen)
    return cfg, grid, read_choice(args, cfg)


def read_choice(args: argparse.Namespace, cfg: CfgNode) -> list[str]:
    """The names of the data sets to choose on.

    Raises:
        UserError: one is not searched.
    """
    choose_on = list(dict.fromkeys(args.choose_on.replace(",", " ").split()))
    for name in choose_on:
        if name not in cfg.DATASETS.TEST:
            raise UserError(
                f"--choose-on {name!r} is not among DATASETS.TEST "
                f"({', '.join(cfg.DATASETS.TEST)}); name it there too"
            )
    return choose_on or list(cfg.DATASETS.TEST)


def _halves(args: argparse.Namespace) -> int:
    return 2 if args.held_out else 1


def run(cfg: CfgNode, args: argparse.Namespace, grid: Grid, choose_on: list[str]) -> None:
    """One process's work; ``grid`` and ``choose_on`` are those of :func:`setup`."""
    from detectron2.utils import comm
    from detectron2.utils.logger import setup_logger

    from ovseg.data.own.registration import register_custom
    from ovseg.engine.ensemble_search import search_dataset
    from ovseg.engine.trainer import load_model
    from ovseg.evaluation.ensemble_report import Search
    from ovseg.utils.images import allow_megapixels

    output = Path(args.output)
    setup_logger(str(output), distributed_rank=comm.get_rank(), name="ovseg")
    register_custom(cfg.DATASETS.CUSTOM)  # again: this may be a new process
    allow_megapixels(cfg.INPUT.MAX_MEGAPIXELS)
    model = load_model(cfg)
    unfinished = output / "unfinished"
    results = [
        search_dataset(cfg, model, name, grid, _halves(args), unfinished)
        for name in cfg.DATASETS.TEST
    ]
    found = [result for result in results if result is not None]
    if not comm.is_main_process():
        return
    about = {"config": args.config_file, "weights": cfg.MODEL.WEIGHTS, "overrides": args.opts}
    search = Search(grid, found, choose_on, args.held_out, about)
    paths = search.write(output)
    shutil.rmtree(unfinished)
    print(f"\n{search.text()}\nWritten: {', '.join(str(path) for path in paths)}")
    failed = sum(len(result.details["left out"]) for result in found)
    if failed:
        said = counted(failed, "image", "was/were")
        print(f"error: {said} left out; search.json says why", file=sys.stderr)
        raise SystemExit(1)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with cli_errors(), several_processes():
        args = build_parser().parse_args(argv)
        read_grid(args)
        cfg = check_command(args)
        check_output_folder(args.output, "--output")
        if cfg is not None:
            read_choice(args, cfg)

        from ovseg.engine.checks import check_truth
        from ovseg.engine.processes import plain_errors, start_with_config

        with plain_errors():
            # here once, before processes start, so that a mistake is reported once
            cfg, grid, choose_on = setup(args)
            check_truth(cfg.DATASETS.TEST, halves=_halves(args))
            work = functools.partial(run, grid=grid, choose_on=choose_on)
            start_with_config(work, cfg, args, output=args.output)
