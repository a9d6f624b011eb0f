"""How many processes to start, and how their errors reach the user as one line."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from torch.multiprocessing import ProcessExitedException

from ovseg.errors import UserError

logger = logging.getLogger(__name__)


def count_processes(num_gpus: int, cfg: CfgNode, num_machines: int = 1) -> int:
    """The number of processes to start on this machine: one a GPU, or one on the CPU.

    Args:
        num_gpus: as the user asked; 1 (the default of ``--num-gpus``) also means "what is there".
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
    error that ends a training. A training process that has ended with an exit code, having said
    why, ends this one with the same code.
    """
    training = logging.getLogger("detectron2.engine.train_loop")
    training.addFilter(_without_traceback)
    try:
        yield
    except UserError as error:
        raise UserError(_own_line(error)) from error
    except ProcessExitedException as error:
        raise SystemExit(error.exit_code) from error
    finally:
        training.removeFilter(_without_traceback)


def _own_line(error: BaseException) -> str:
    return re.split(r"^\S*UserError: ", str(error), flags=re.MULTILINE)[-1].strip()


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, UserError):
        record.msg, record.args, record.exc_info = _own_line(error), None, None
    return True
