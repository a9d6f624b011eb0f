"""How many processes a command starts, by its options and what the machine has.

That each number by itself can be is for :mod:`ovseg.engine.process_options`.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist

from ovseg.engine.place import Place
from ovseg.errors import UserError


def wanted_processes(device: str, args: argparse.Namespace) -> int:
    """How many processes a command is to start on this machine.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        args: with the options of :func:`ovseg.engine.process_options.add_processes`.

    Raises:
        UserError: they do not fit each other, or this machine.
    """
    place = torch.device(device)
    if place.type == "cpu":
        count = count_cpu_processes(args)
    else:
        if args.num_processes is not None:
            raise UserError(
                f"--num-processes {args.num_processes} is for CPUs, and MODEL.DEVICE is {device}; "
                "give --num-gpus"
            )
        # "cuda:1" is that one alone
        all_gpus = args.all_gpus and place.index is None
        default = torch.cuda.device_count() if all_gpus else 1
        count = count_processes(default if args.num_gpus is None else args.num_gpus, device)
    machines = args.num_machines
    if args.machine_rank >= machines:
        raise UserError(
            f"--num-machines {machines} --machine-rank {args.machine_rank}: ranks are 0 to "
            "the number of machines less 1"
        )
    if machines > 1 and args.dist_url == "auto":
        raise UserError(
            f"--num-machines {machines}: give --dist-url tcp://HOST:PORT too, where the machine of "
            "--machine-rank 0 can be reached"
        )
    if count * machines > 1 and dist.is_torchelastic_launched():
        raise UserError(
            f"torchrun has started one process, and {count * machines} are asked for; leave out "
            "torchrun, or give it --nproc-per-node"
        )
    return count


def count_cpu_processes(args: argparse.Namespace) -> int:
    """The number of processes to start on this machine's CPU.

    Raises:
        UserError: GPUs were asked for.
    """
    if args.num_gpus is not None and args.num_gpus > 1:
        reason = "MODEL.DEVICE is cpu" if torch.cuda.device_count() else "this machine has no GPU"
        raise UserError(
            f"--num-gpus {args.num_gpus}: {reason}; leave it out to run in one process on the CPU, "
            f"or give --num-processes {args.num_gpus} in its place"
        )
    return 1 if args.num_processes is None else int(args.num_processes)


def count_processes(num_gpus: int, device: str) -> int:
    """The number of processes to start on this machine's GPUs: one each.

    Args:
        num_gpus: as the user asked.
        device: ``cuda``, or ``cuda:N``, which is that one alone.

    Raises:
        UserError: more GPUs were asked for than there are, or than ``device`` names.
    """
    present = torch.cuda.device_count()
    if num_gpus > present:
        raise UserError(
            f"--num-gpus {num_gpus}: this machine has {present}; give --num-gpus {present} or fewer"
        )
    if torch.device(device).index is not None and num_gpus > 1:
        raise UserError(
            f"--num-gpus {num_gpus}: MODEL.DEVICE {device} is a single GPU; give MODEL.DEVICE cuda"
        )
    if num_gpus == 0:
        raise UserError("--num-gpus 0: to run on the CPU give MODEL.DEVICE cpu at the end")
    return num_gpus


def refuse_options(args: argparse.Namespace, place: Place) -> None:
    """Find out whether a command asks for processes where others have been started already.

    Raises:
        UserError: it does.
    """
    if place.started_by == "launch":
        return
    for name, plain in (
        ("num_gpus", None), ("num_processes", None), ("num_machines", 1), ("machine_rank", 0),
        ("dist_url", "auto"),
    ):  # fmt: skip
        value = getattr(args, name)
        if value != plain:
            option = f"--{name.replace('_', '-')} {value}"
            raise UserError(
                f"{option}: {place.started_by} has started {place.world} processes already; leave "
                "it out"
            )
