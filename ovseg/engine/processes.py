"""How the processes of a run are started, and how their errors reach the user as one line.

There are two ways, of all commands. The command starts them itself, by detectron2's options
(``--num-gpus``, ``--num-machines``, ``--machine-rank``, ``--dist-url``) and on CPUs by
``--num-processes``; or torchrun or SLURM's ``srun`` has started them. Either way they meet
(:mod:`ovseg.engine.meeting`), and join in a process group of NCCL on GPUs, of gloo on CPUs.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.utils import comm

from ovseg.engine import stopping
from ovseg.engine.joining import current_meeting, joined
from ovseg.engine.launcher import Launch, launch
from ovseg.engine.meeting import Meeting
from ovseg.engine.place import Place, find_place
from ovseg.engine.process_counts import refuse_options, wanted_processes
from ovseg.errors import UserError, cli_errors, is_debugging, is_full_disk
from ovseg.utils.io import folder_stays, make_folder, naming_file

#: one process's work; a function of a module, or a ``partial`` of one, that processes can be given
Work = Callable[[], Any]

#: processes wait for others that have more to do; that these live is looked after elsewhere
_PATIENCE = timedelta(days=7)


def start(
    work: Work,
    args: argparse.Namespace,
    *,
    device: str,
    output: str | os.PathLike[str] | None,
    argument: str = "",
    settings: Mapping[str, object] | None = None,
) -> Any:
    """Call ``work()`` in every process: new ones, or those that torchrun or srun has started.

    A mistake that shows there is one line too. The output folder is made first, once nothing is
    known to be wrong.

    Args:
        work: is done in each process.
        args: with the options of :func:`ovseg.engine.process_options.add_processes`.
        device: ``cuda`` or ``cpu``; says whether GPUs are used.
        output: the folder that the run writes to, if there is one.
        argument: what the user named it by.
        settings: what has to be the same in all processes, besides ``args``.

    Returns:
        What ``work`` returned in this process; None where it was done in new ones.

    Raises:
        UserError: the numbers of processes do not fit this machine, the processes do not mean the
            same run, or the folder cannot be made.
    """
    place = find_place()
    meeting = current_meeting()
    if place is not None and meeting is None:
        with joined(place):
            return start(
                work, args, device=device, output=output, argument=argument, settings=settings
            )
    same = _same_settings(args, settings or {}, output)
    if meeting is not None:
        refuse_options(args, meeting.place)
        meeting.agree(same)
        _make(output, argument)
        return _join_group(work, meeting, device, output)
    count = wanted_processes(device, args)
    _make(output, argument)
    if count * args.num_machines == 1:
        with stopping.handled():
            return _do(work, output)
    job = Launch(count, args.num_machines, args.machine_rank, args.dist_url)
    launch(
        job,
        _started,
        (work, device, output, same, is_debugging()),
        on_cpu=torch.device(device).type == "cpu",
    )
    return None


def start_with_config(
    work: Callable[..., Any],
    cfg: CfgNode,
    args: argparse.Namespace,
    *,
    output: str | os.PathLike[str],
    argument: str = "--output",
) -> Any:
    """:func:`start` ``work(cfg, args)`` on the config's device; all processes have one config.

    Args:
        work: is done in each process.
        cfg: of the run.
        args, output, argument: see :func:`start`, whose result and errors these are.
    """
    return start(
        functools.partial(work, cfg, args),
        args,
        device=cfg.MODEL.DEVICE,
        output=output,
        argument=argument,
        settings=config_settings(cfg),
    )


def config_settings(cfg: CfgNode) -> dict[str, object]:
    """The settings of a config that has to be the same in all processes, by key."""
    found: dict[str, object] = {}
    for name, value in cfg.items():
        inner = config_settings(value) if isinstance(value, CfgNode) else {"": value}
        found |= {f"{name}.{key}" if key else name: each for key, each in inner.items()}
    return found


def _same_settings(
    args: argparse.Namespace,
    settings: Mapping[str, object],
    output: str | os.PathLike[str] | None,
) -> dict[str, str]:
    options = {
        f"--{name.replace('_', '-')}": value
        for name, value in vars(args).items()
        if name not in {"machine_rank", "opts"}
    }
    place = None if output is None else os.path.abspath(output)
    return {
        name: repr(value)
        for name, value in {**settings, **options, "output folder": place}.items()
    }  # fmt: skip


def _make(output: str | os.PathLike[str] | None, argument: str) -> None:
    if output is not None:
        make_folder(output, argument)


def _started(place: Place, store: dist.Store, arguments: tuple[Any, ...]) -> None:
    """What a process does that :func:`launch` has started."""
    work, device, output, same, debug = arguments
    with cli_errors(debug), joined(place, store) as meeting:
        meeting.agree(same)
        _join_group(work, meeting, device, output)


def _do(work: Work, output: str | os.PathLike[str] | None) -> Any:
    with plain_errors(), folder_stays(output), naming_file(output or ""):
        return work()


def _join_group(
    work: Work, meeting: Meeting, device: str, output: str | os.PathLike[str] | None
) -> Any:
    place = meeting.place
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        _choose_gpu(place)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.PrefixStore("group", meeting.store),
        rank=place.rank,
        world_size=place.world,
        timeout=_PATIENCE,
    )
    try:
        for ranks in meeting.machines().values():
            group = dist.new_group(ranks)
            if place.rank in ranks:
                comm._LOCAL_PROCESS_GROUP = group
        result = _do(work, output)
        dist.destroy_process_group()  # not after an error, for which the others do not wait
        return result
    finally:
        comm._LOCAL_PROCESS_GROUP = None


def _choose_gpu(place: Place) -> None:
    present = torch.cuda.device_count()
    # SLURM may show each process its own alone
    index = 0 if present == 1 and place.started_by == "srun" else place.local_rank
    if index >= present:
        raise UserError(
            f"process {place.local_rank} of this machine has no GPU of its own (there are "
            f"{present}); start {present} processes"
        )
    torch.cuda.set_device(index)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Reduce errors to what the user has to know.

    A :class:`UserError` raised in a loading process comes back with that process's traceback in its
    text: the error's own line is kept. So is it alone where detectron2 logs the traceback of an
    error that ends a training, of a full disk too, which then leaves the log silent.
    """
    training = logging.getLogger("detectron2.engine.train_loop")
    training.addFilter(_without_traceback)
    complain, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    except UserError as error:
        raise UserError(_own_line(error)) from error
    finally:
        training.removeFilter(_without_traceback)
        logging.raiseExceptions = complain


def _own_line(error: BaseException) -> str:
    return re.split(r"^\S*UserError: ", str(error), flags=re.MULTILINE)[-1].strip()


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and (isinstance(error, UserError) or is_full_disk(error)):
        record.msg, record.args, record.exc_info = _own_line(error), None, None
    return True
