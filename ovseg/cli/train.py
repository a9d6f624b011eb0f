"""Train the segmentation model, or evaluate a checkpoint.

    ovseg train --num-gpus 8 --config-file configs/ovseg_swinB_vitL_bs32_120k.yaml
    ovseg evaluate --config-file configs/ovseg_swinB_vitL_bs32_120k.yaml \\
        MODEL.WEIGHTS checkpoint.pth DATASETS.TEST ade20k_sem_seg_val,pascalvoc20_sem_seg_val

python train_net.py is ovseg train, and with --eval-only ovseg evaluate. Without a GPU it runs in
one process on the CPU. Results are logged and written to OUTPUT_DIR. Exit code: 1 when images could
not be evaluated (the others are), 2 for a mistake in the command.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.cli.options import (
    add_config_file,
    add_opts,
    add_proposals,
    add_speed,
    check_command,
    config_opts,
)
from ovseg.config.first_look import check_output_folder
from ovseg.config.overrides import NAME_LISTS
from ovseg.config.speed import speed_opts
from ovseg.engine.place import is_first_process, is_restart
from ovseg.engine.process_options import add_processes, several_processes
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.utils.counting import counted

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ovseg.data.data_report import DataReport

logger = logging.getLogger(__name__)


def build_parser() -> Parser:
    """The options of a training and of an evaluation."""
    return make_parser(__doc__, evaluating=False)


def make_parser(description: str | None, evaluating: bool) -> Parser:
    """The options of a training; or of an evaluation, which then needs no ``--eval-only``."""
    parser = Parser(description)
    condition = "" if evaluating else "with --eval-only: "
    add_config_file(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="evaluate the last checkpoint in OUTPUT_DIR"
        if evaluating
        else "go on from the last checkpoint in OUTPUT_DIR",
    )
    if not evaluating:
        parser.add_argument(
            "--overwrite",
            action="store_true",
            help="remove the earlier training in OUTPUT_DIR, which would otherwise be refused",
        )
        parser.add_argument(
            "--scale-lr",
            action="store_true",
            help="scale learning rate and iterations of the config file to the batch size that is "
            "given at the end as SOLVER.IMS_PER_BATCH; the log says what it changes",
        )
    parser.add_argument(
        "--eval-only",
        action="store_true",
        default=evaluating,
        help=argparse.SUPPRESS if evaluating else "evaluate MODEL.WEIGHTS in place of training",
    )
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="FILE",
        help="yaml file of your own data set (see docs/own-data.md), to "
        + ("evaluate on" if evaluating else "train on, or with --eval-only to evaluate on")
        + "; may be given several times",
    )
    parser.add_argument(
        "--check-data",
        action="store_true",
        help="check all files of the data sets before the run; without it only a sample of large "
        "data sets is checked",
    )
    add_proposals(parser, condition)
    add_speed(parser, condition)
    add_processes(parser, all_gpus=False)
    add_opts(parser)
    return parser


def setup(args: argparse.Namespace) -> CfgNode:
    """The frozen config that a command line asks for, its data sets registered.

    ``--dataset`` stands for ``DATASETS.CUSTOM`` and the keys that use its data sets; what is given
    at the end of the command takes precedence.
    """
    from ovseg.config import setup_cfg
    from ovseg.config.scaling import scale_to_batch
    from ovseg.data.datasets import ignore_label
    from ovseg.data.own.registration import register_custom
    from ovseg.utils.images import allow_megapixels

    opts: list[Any] = []
    if args.dataset:
        names = tuple(register_custom(args.dataset))
        opts = ["DATASETS.CUSTOM", tuple(args.dataset), "DATASETS.TEST", names]
        if not args.eval_only:
            ignored = ignore_label(names[0])
            opts = [*opts[:3], (), "DATASETS.TRAIN", names]
            opts += ["MODEL.SEM_SEG_HEAD.IGNORE_VALUE", ignored]
    opts += speed_opts(args.speed)
    for option in ("load_proposals", "save_proposals"):
        folder = getattr(args, option)
        opts += [f"TEST.{option.upper()}", folder] if folder else []

    def make(overrides: Sequence[Any]) -> CfgNode:
        return setup_cfg(args.config_file, [*opts, *overrides])

    given = config_opts(args)
    cfg = make(given)
    if getattr(args, "scale_lr", False):
        scaled, line = scale_to_batch(given, cfg.SOLVER.IMS_PER_BATCH, make)
        cfg = make([*given, *scaled])
        if is_first_process():
            print(line, flush=True)
    allow_megapixels(cfg.INPUT.MAX_MEGAPIXELS)
    register_custom(cfg.DATASETS.CUSTOM)
    return cfg


def run(
    cfg: CfgNode, args: argparse.Namespace, reports: Sequence[DataReport] = ()
) -> dict[str, Any] | None:
    """One process's work: set up the log, then train or evaluate.

    Args:
        cfg: see :func:`setup`.
        args: of the command line.
        reports: of the data sets; they are logged.

    Returns:
        The last evaluation's results, ``{"sem_seg": {...}}`` or one such dict a data set; None when
        there was none.
    """
    from detectron2.utils import comm

    from ovseg.data.own.registration import register_custom
    from ovseg.engine.resuming import (
        checkpoints,
        only_training,
        remove_training,
        rewind_metrics,
    )
    from ovseg.engine.trainer import Trainer
    from ovseg.utils.images import allow_megapixels

    register_custom(cfg.DATASETS.CUSTOM)  # again: this may be a new process
    allow_megapixels(cfg.INPUT.MAX_MEGAPIXELS)
    if args.eval_only:
        _begin(cfg, args, reports)
        return evaluate(cfg, resume=args.resume)
    with only_training(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext():
        # only now: all processes are known to mean this training. And a run that was stopped before
        # its first checkpoint leaves nothing to go on with
        if comm.is_main_process() and (args.overwrite or not checkpoints(cfg.OUTPUT_DIR)):
            remove_training(cfg.OUTPUT_DIR)
        comm.synchronize()
        _begin(cfg, args, reports)
        if args.resume and comm.is_main_process():
            rewind_metrics(cfg.OUTPUT_DIR)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
    return getattr(trainer, "_last_eval_results", None)


def _begin(cfg: CfgNode, args: argparse.Namespace, reports: Sequence[DataReport]) -> None:
    from detectron2.utils import comm

    from ovseg.engine.run_setup import set_up_run

    set_up_run(cfg, args)
    logger.info("Running on %s, %d process(es)", cfg.MODEL.DEVICE, comm.get_world_size())
    for report in reports if comm.is_main_process() else ():
        logger.info("%s", report.table())
        for line in report.warnings():
            logger.warning("%s", line)


def evaluate(cfg: CfgNode, resume: bool) -> dict[str, Any]:
    """Evaluate ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint in ``OUTPUT_DIR``.

    Ends the process with code 1 when images had to be left out.
    """
    from detectron2.evaluation import verify_results
    from detectron2.evaluation.testing import flatten_results_dict
    from detectron2.utils import comm

    from ovseg.engine.checkpoint import OVSegCheckpointer
    from ovseg.engine.trainer import Trainer

    model = Trainer.build_model(cfg)
    checkpointer = OVSegCheckpointer(model, cfg.OUTPUT_DIR, cfg=cfg, trained=True)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
        counts = flatten_results_dict(results)
        failed = sum(counts[key] for key in counts if key.split("/")[-1] == "failed_images")
        if failed:
            said = counted(failed, "image", "was/were")
            print(f"error: {said} left out; the log says why", file=sys.stderr)
            raise SystemExit(1)
    return results


def _check_options(args: argparse.Namespace) -> None:
    if getattr(args, "scale_lr", False) and args.eval_only:
        raise UserError("--scale-lr is for training; leave it out with --eval-only")
    if args.dataset and "DATASETS.CUSTOM" in args.opts:
        raise UserError("--dataset and DATASETS.CUSTOM are both given; give one of them")
    if getattr(args, "overwrite", False) and (args.resume or args.eval_only):
        other = "--resume" if args.resume else "--eval-only"
        raise UserError(f"--overwrite and {other} are both given; give one of them")
    for option in ("load_proposals", "save_proposals"):
        folder = getattr(args, option)
        if folder and not args.eval_only:
            raise UserError(f"--{option.replace('_', '-')} {folder!r}: add --eval-only")
    keys = ("DATASETS.TEST",) if args.eval_only else NAME_LISTS
    cfg = check_command(args, keys, needed=args.eval_only)
    if cfg is not None:
        check_output_folder(cfg.OUTPUT_DIR, "config key OUTPUT_DIR:")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with cli_errors(), several_processes():
        train_or_evaluate(build_parser().parse_args(argv))


def train_or_evaluate(args: argparse.Namespace) -> None:
    """Do what a command line of :func:`make_parser` asks for.

    Raises:
        UserError: a mistake in it.
    """
    _check_options(args)
    from ovseg.engine.checks import check_checkpoint, check_evaluation, check_training
    from ovseg.engine.processes import plain_errors, start_with_config
    from ovseg.engine.resuming import MARK

    with plain_errors():
        # here once, before processes start, so that a mistake is reported once
        cfg = setup(args)
        if not args.eval_only and not args.resume and is_restart(Path(cfg.OUTPUT_DIR, MARK)):
            if is_first_process():
                print("started again by torchrun or SLURM: going on, as with --resume", flush=True)
            args.resume, args.overwrite = True, False
        if args.eval_only:
            reports = check_evaluation(cfg, args.check_data)
            check_checkpoint(cfg, args.resume)
        else:
            reports = check_training(cfg, args.resume, args.overwrite, args.check_data)
        start_with_config(
            functools.partial(run, reports=reports),
            cfg,
            args,
            output=cfg.OUTPUT_DIR,
            argument="config key OUTPUT_DIR:",
        )
