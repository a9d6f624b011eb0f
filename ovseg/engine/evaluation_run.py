"""Command lines of scripts that run a model over data sets, and their processes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import launch

from ovseg.config import setup_cfg
from ovseg.data.custom import register_custom
from ovseg.data.datasets import load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.loader import Example
from ovseg.engine.checkpoint import OVSegCheckpointer, check_weights
from ovseg.engine.processes import count_processes
from ovseg.engine.proposals import check_proposal_files
from ovseg.engine.trainer import Trainer, check_datasets
from ovseg.errors import Parser, UserError
from ovseg.modeling import OVSeg
from ovseg.utils.io import make_folder


class EvaluationParser(Parser):
    """detectron2's options that have to do with evaluating."""

    def __init__(self, description: str | None, output: str) -> None:
        """Describe the script; ``output`` is where it writes by default."""
        super().__init__(description)
        self.add_argument("--config-file", default="", metavar="FILE", help="model config")
        self.add_argument("--output", default=output, metavar="DIR", help=f"default: {output}")
        self.add_argument(
            "--num-gpus", type=int, metavar="N", help="a process each; default: all there are"
        )
        self.add_argument(
            "--load-proposals", default="", metavar="DIR",
            help="a file of proposals for each image, in place of MaskFormer's",
        )  # fmt: skip
        self.add_argument("--num-machines", type=int, default=1, metavar="N")
        self.add_argument("--machine-rank", type=int, default=0, metavar="N")
        self.add_argument(
            "--dist-url", default="auto", metavar="URL", help="where several machines meet"
        )
        self.add_argument(
            "opts",
            nargs=argparse.REMAINDER,
            metavar="KEY VALUE",
            help="config overrides, last on the line, for instance MODEL.WEIGHTS model.pth",
        )


def evaluation_cfg(args: argparse.Namespace) -> CfgNode:
    """The config that the arguments ask for; what can be checked is checked.

    Raises:
        UserError: a mistake in the config, or weights or a data set that are not there.
    """
    opts = ["TEST.LOAD_PROPOSALS", args.load_proposals] if args.load_proposals else []
    cfg = setup_cfg(args.config_file, [*opts, *args.opts])
    register_custom(cfg.DATASETS.CUSTOM)
    if not cfg.MODEL.WEIGHTS:
        raise UserError(
            "config key MODEL.WEIGHTS: empty; give the checkpoint at the end of the command, "
            "MODEL.WEIGHTS checkpoint.pth"
        )
    check_weights(cfg.MODEL.WEIGHTS)
    if not cfg.DATASETS.TEST:
        raise UserError("config key DATASETS.TEST: empty; name a data set, DATASETS.TEST name")
    # their results have a place each, by name
    cfg.defrost()
    cfg.DATASETS.TEST = tuple(dict.fromkeys(cfg.DATASETS.TEST))
    cfg.freeze()
    check_datasets(cfg.DATASETS.TEST)
    check_proposal_files(cfg)
    for key, used in (
        ("TEST.AUG.ENABLED", cfg.TEST.AUG.ENABLED),
        ("TEST.SLIDING_WINDOW", cfg.TEST.SLIDING_WINDOW),
    ):
        if used:
            raise UserError(f"{key} True: images are looked at once here; set it to False")
    if cfg.TEST.DENSE_CRF:
        raise UserError("TEST.DENSE_CRF True: labels are not refined here; set it to False")
    return cfg


def check_truth(names: Sequence[str], halves: int = 1, limit: int | None = None) -> None:
    """Find out before any work whether data sets have ground truth, up to the first labelled pixel.

    Args:
        names: of registered data sets.
        halves: 2 if each half, that is every other image, must have some.
        limit: only the first so many images.

    Raises:
        UserError: the label maps are missing, or all their pixels ignored.
    """
    for name in names:
        ignore_label = int(MetadataCatalog.get(name).get("ignore_label", 255))
        examples = load_dataset(name, unpaired=True)[:limit]  # as they will be counted
        for half in range(halves):
            if not any(_labelled(example, ignore_label) for example in examples[half::halves]):
                raise UserError(
                    f"data set {name}: there is no ground truth in its label maps"
                    f"{' (or in one half of them)' if halves > 1 else ''}; choose another one"
                )


def _labelled(example: Example, ignore_label: int) -> bool:
    try:
        return bool((read_truth(example) != ignore_label).any())
    except UserError:  # the image will be left out
        return False


def load_model(cfg: CfgNode) -> OVSeg:
    """The model with ``MODEL.WEIGHTS``, in evaluation mode."""
    model = Trainer.build_model(cfg).eval()
    assert isinstance(model, OVSeg)
    OVSegCheckpointer(model, cfg=cfg, trained=True).load(cfg.MODEL.WEIGHTS)
    return model


def start(run: Callable[..., Any], cfg: CfgNode, args: argparse.Namespace) -> None:
    """Call ``run(cfg, args)`` in every process: new ones, or those that torchrun has started.

    The folder ``--output`` is made first, once nothing is known to be wrong.

    Args:
        run: a function of a module, so that other processes can be given it.
        cfg: its ``MODEL.DEVICE`` says whether GPUs are used.
        args: of an :class:`EvaluationParser`; under torchrun the numbers of processes are not
            looked at.

    Raises:
        UserError: more GPUs were asked for than there are, or ``--output`` cannot be made.
    """
    device = torch.device(cfg.MODEL.DEVICE)
    on_gpu = device.type == "cuda"
    if not dist.is_torchelastic_launched():
        # "cuda:1" is that one alone
        everything = torch.cuda.device_count() if on_gpu and device.index is None else 1
        wanted = everything if args.num_gpus is None else args.num_gpus
        count = count_processes(wanted, cfg, args.num_machines)
        make_folder(args.output, "--output")
        launch(
            run,
            count,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(cfg, args),
        )
        return
    make_folder(args.output, "--output")
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        run(cfg, args)
    finally:
        dist.destroy_process_group()
