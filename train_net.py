#!/usr/bin/env python3
"""Train OVSeg's segmenter, or evaluate a checkpoint.

    python train_net.py --num-gpus 8 --config-file configs/ovseg_swinB_vitL_bs32_120k.yaml
    python train_net.py --eval-only --config-file configs/ovseg_swinB_vitL_bs32_120k.yaml \\
        MODEL.WEIGHTS checkpoint.pth DATASETS.TEST ade20k_sem_seg_val,pascalvoc20_sem_seg_val

Without a GPU it runs in one process on the CPU. Results are logged and written to OUTPUT_DIR. Exit
code: 1 when images could not be evaluated (the others are), 2 for a mistake in the command.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

import ovseg  # isort: skip  # noqa: F401  before detectron2: it says how to install that

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.evaluation import verify_results
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ovseg.config import setup_cfg
from ovseg.data.custom import register_custom
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.processes import count_processes, plain_errors
from ovseg.engine.proposals import check_proposal_files
from ovseg.engine.trainer import Trainer, check_datasets, check_ignore_value, check_segments
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.utils.io import make_folder

logger = logging.getLogger("ovseg.train_net")


def run(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any] | None:
    """One process's work: set up the log, then train or evaluate.

    Returns:
        The last evaluation's results, ``{"sem_seg": {...}}`` or one such dict a data set; None when
        there was none.
    """
    with cli_errors(), plain_errors():
        register_custom(cfg.DATASETS.CUSTOM)  # again: this may be a new process
        default_setup(cfg, args)
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="ovseg")
        logger.info("Running on %s, %d process(es)", cfg.MODEL.DEVICE, comm.get_world_size())
        if args.eval_only:
            return evaluate(cfg, resume=args.resume)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        return getattr(trainer, "_last_eval_results", None)


def evaluate(cfg: CfgNode, resume: bool) -> dict[str, Any]:
    """Evaluate ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint in ``OUTPUT_DIR``.

    Ends the process with code 1 when images had to be left out.
    """
    model = Trainer.build_model(cfg)
    checkpointer = OVSegCheckpointer(model, cfg.OUTPUT_DIR, cfg=cfg, trained=True)
    if not cfg.MODEL.WEIGHTS and not (resume and checkpointer.has_checkpoint()):
        raise UserError(
            "config key MODEL.WEIGHTS: empty; give the checkpoint to evaluate at the end of the "
            "command, MODEL.WEIGHTS checkpoint.pth"
        )
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
        counts = flatten_results_dict(results)
        failed = sum(counts[key] for key in counts if key.split("/")[-1] == "failed_images")
        if failed:
            print(f"error: {failed} images were left out; the log names them", file=sys.stderr)
            raise SystemExit(1)
    return results


def build_parser() -> Parser:
    """detectron2's options, and OVSeg's."""
    theirs = default_argument_parser()
    parser = Parser(__doc__, parents=[theirs], epilog=theirs.epilog, conflict_handler="resolve")
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="FILE",
        help="yaml file of your own data set (see GETTING_STARTED.md): evaluated with --eval-only, "
        "else trained on; may be given several times",
    )
    parser.add_argument(
        "--load-proposals",
        metavar="DIR",
        help="with --eval-only: a file of proposals for each image, in place of MaskFormer's",
    )
    parser.add_argument(
        "--save-proposals",
        metavar="DIR",
        help="with --eval-only: write MaskFormer's proposals for each image besides evaluating",
    )
    return parser


def setup(args: argparse.Namespace) -> CfgNode:
    """The frozen config that a command line asks for, its data sets registered.

    ``--dataset`` stands for ``DATASETS.CUSTOM`` and the keys that use its data sets; what is given
    at the end of the command goes before.
    """
    opts: list[Any] = []
    if args.dataset:
        if "DATASETS.CUSTOM" in args.opts:
            raise UserError("--dataset and DATASETS.CUSTOM are both given; give one of them")
        names = tuple(register_custom(args.dataset))
        opts = ["DATASETS.CUSTOM", tuple(args.dataset), "DATASETS.TEST", names]
        if not args.eval_only:
            ignored = MetadataCatalog.get(names[0]).ignore_label
            opts = [*opts[:3], (), "DATASETS.TRAIN", names]
            opts += ["MODEL.SEM_SEG_HEAD.IGNORE_VALUE", ignored]
    for option in ("load_proposals", "save_proposals"):
        folder = getattr(args, option)
        if folder and not args.eval_only:
            raise UserError(f"--{option.replace('_', '-')} {folder!r}: add --eval-only")
        opts += [f"TEST.{option.upper()}", folder] if folder else []
    cfg = setup_cfg(args.config_file, [*opts, *args.opts])
    register_custom(cfg.DATASETS.CUSTOM)
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with cli_errors(), plain_errors():
        args = build_parser().parse_args(argv)
        # here once, before processes start, so that a mistake is reported once
        cfg = setup(args)
        processes = count_processes(args.num_gpus, cfg, args.num_machines)
        make_folder(cfg.OUTPUT_DIR, "config key OUTPUT_DIR:")
        if args.eval_only and not cfg.DATASETS.TEST:
            raise UserError("config key DATASETS.TEST: empty; name a data set to evaluate on")
        check_datasets(cfg.DATASETS.TEST)
        check_proposal_files(cfg)
        check_segments(cfg)
        if not args.eval_only:
            check_datasets(cfg.DATASETS.TRAIN, key="DATASETS.TRAIN")
            check_ignore_value(cfg)
        launch(
            run,
            processes,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(cfg, args),
        )


if __name__ == "__main__":
    main()
