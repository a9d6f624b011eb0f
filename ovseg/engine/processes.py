"""How the processes of a run are started, and how their errors reach the user as one line."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from ovseg.errors import UserError, cli_errors
from ovseg.utils.io import is_full_disk, make_folder, naming_file

#: one process's work, from a config and a command line
Run = Callable[[CfgNode, argparse.Namespace], Any]


def start(
    run: Run,
    cfg: CfgNode,
    args: argparse.Namespace,
    output: str,
    argument: str,
) -> None:
    """Call ``run(cfg, args)`` in every process: new ones, or those that torchrun has started.

    A mistake that shows there is one line too. The output folder is made first, once nothing is
    known to be wrong.

    Args:
        run: a function of a module, so that other processes can be given it.
        cfg: its ``MODEL.DEVICE`` says whether GPUs are used.
        args: with the options of :func:`ovseg.cli.options.add_processes`; under torchrun they are
            not looked at.
        output: the folder that the run writes to.
        argument: what the user named it by.

    Raises:
        UserError: the numbers of processes do not fit this machine, or the folder cannot be made.
    """
    if dist.is_torchelastic_launched():
        make_folder(output, argument)
        _run_in_torchrun(run, cfg, args, output)
        return
    count = _wanted_processes(cfg, args)
    make_folder(output, argument)
    launch(
        _run_plainly,
        count,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(run, cfg, args, output),
    )


def is_first_process(args: argparse.Namespace) -> bool:
    """Whether this process, which has a command line, is the one of several that clears up."""
    return args.machine_rank == 0 and int(os.environ.get("RANK", "0")) == 0


def _wanted_processes(cfg: CfgNode, args: argparse.Namespace) -> int:
    device = torch.device(cfg.MODEL.DEVICE)
    # "cuda:1" is that one alone
    everything = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
    wanted = everything if args.num_gpus is None else args.num_gpus
    count = count_processes(wanted, cfg, args.num_machines)
    if args.num_machines > 1 and args.dist_url == "auto":
        raise UserError(
            f"--num-machines {args.num_machines}: give --dist-url tcp://HOST:PORT too, where the "
            "machine of --machine-rank 0 can be reached"
        )
    return count


def _run_plainly(run: Run, cfg: CfgNode, args: argparse.Namespace, output: str) -> None:
    with cli_errors(), plain_errors(), naming_file(output):
        run(cfg, args)


def _run_in_torchrun(run: Run, cfg: CfgNode, args: argparse.Namespace, output: str) -> None:
    on_gpu = torch.device(cfg.MODEL.DEVICE).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        _set_local_group(int(os.environ["LOCAL_WORLD_SIZE"]))
        _run_plainly(run, cfg, args, output)
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        dist.destroy_process_group()


def _set_local_group(size: int) -> None:
    """Tell detectron2 which processes share this machine, as its own ``launch`` does."""
    for first in range(0, dist.get_world_size(), size):
        group = dist.new_group(list(range(first, first + size)))
        if first <= dist.get_rank() < first + size:
            comm._LOCAL_PROCESS_GROUP = group


def count_processes(num_gpus: int, cfg: CfgNode, num_machines: int = 1) -> int:
    """The number of processes to start on this machine: one a GPU, or one on the CPU.

    Args:
        num_gpus: as the user asked; 1 also means "what is there".
        cfg: its ``MODEL.DEVICE`` is ``cpu`` where there is no GPU; ``cuda:N`` is that one alone.
        num_machines: with several, every machine needs GPUs.

    Raises:
        UserError: more GPUs were asked for than there are, or than ``MODEL.DEVICE`` names.
    """
    present = torch.cuda.device_count()
    if num_gpus < 0:
        raise UserError(f"--num-gpus {num_gpus}: give the number of GPUs to use, at least 1")
    device = torch.device(cfg.MODEL.DEVICE)
    if device.type == "cpu":
        if num_gpus > 1 or num_machines > 1:
            reason = "MODEL.DEVICE is cpu" if present else "this machine has no GPU"
            raise UserError(
                f"--num-gpus {num_gpus} --num-machines {num_machines}: {reason}; "
                "leave both out to run in one process on the CPU"
            )
        return 1
    if num_gpus > present:
        raise UserError(
            f"--num-gpus {num_gpus}: this machine has {present}; give --num-gpus {present} or fewer"
        )
    if device.index is not None and num_gpus > 1:
        raise UserError(
            f"--num-gpus {num_gpus}: MODEL.DEVICE {device} is a single GPU; give MODEL.DEVICE cuda"
        )
    if num_gpus == 0:
        raise UserError("--num-gpus 0: to run on the CPU give MODEL.DEVICE cpu at the end")
    return num_gpus


@contextmanager
def plain_errors() -> Iterator[None]:
    """Reduce errors to what the user has to know.

    A :class:`UserError` raised in a loading process comes back with that process's traceback in its
    text: the error's own line is kept. So is it alone where detectron2 logs the traceback of an
    error that ends a training, of a full disk too, which then leaves the log silent. A training
    process that has ended with an exit code, having said why, ends this one with the same code.
    """
    training = logging.getLogger("detectron2.engine.train_loop")
    training.addFilter(_without_traceback)
    complain, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    except UserError as error:
        raise UserError(_own_line(error)) from error
    except ProcessExitedException as error:
        raise SystemExit(error.exit_code) from error
    finally:
        training.removeFilter(_without_traceback)
        logging.raiseExceptions = complain


def _own_line(error: BaseException) -> str:
    return re.split(r"^\S*UserError: ", str(error), flags=re.MULTILINE)[-1].strip()


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, UserError) or (error is not None and is_full_disk(error)):
        record.msg, record.args, record.exc_info = _own_line(error), None, None
    return True
