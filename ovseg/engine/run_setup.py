"""What every training and evaluation begins with: logs, a record of its config, seeds."""

from __future__ import annotations

import argparse
import logging
import os

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from ovseg.utils.io import write_text

logger = logging.getLogger(__name__)


def set_up_run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Log to ``OUTPUT_DIR/log.txt``, write ``config.yaml`` and seed all generators.

    As detectron2's ``default_setup``, but files are written whole or not at all, and an evaluation
    writes ``inference/config.yaml``: the one beside a checkpoint is that of its training.

    Args:
        cfg: of the run.
        args: its command line, with ``eval_only``.
    """
    rank = comm.get_rank()
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    for name in ("fvcore", "detectron2", "ovseg"):
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name=name)
    logger.info("Process %d of %d", rank, comm.get_world_size())
    logger.info("Environment:\n%s", collect_env_info())
    logger.info("Command line: %s", args)
    if comm.is_main_process():
        text = _for_any_folder(cfg).dump()
        logger.info("Config:\n%s", text)
        folder = os.path.join(cfg.OUTPUT_DIR, "inference") if args.eval_only else cfg.OUTPUT_DIR
        os.makedirs(folder, exist_ok=True)
        write_text(os.path.join(folder, "config.yaml"), text)
    # of the model's first weights; several processes take those of the first
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def _for_any_folder(cfg: CfgNode) -> CfgNode:
    """The config with the paths of data sets of one's own made absolute, to be used elsewhere."""
    cfg = cfg.clone()
    cfg.defrost()
    custom = (os.path.abspath(os.path.expanduser(file)) for file in cfg.DATASETS.CUSTOM)
    cfg.DATASETS.CUSTOM = tuple(custom)
    return cfg
