"""Options that several command lines here have, and checks of options."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from ovseg.data.splits import check_dataset_names
from ovseg.engine.place import is_restart
from ovseg.errors import Parser, UserError
from ovseg.utils.settings import option_name

SEEDS = (0, 2**32 - 1)  # what every generator takes


def add_run(parser: Parser, seed: int = 0) -> None:
    """``--seed``, ``--resume`` and ``--overwrite``, which every training has."""
    parser.add_argument("--seed", type=int, default=seed)
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue a stopped run")
    start.add_argument(
        "--overwrite", action="store_true",
        help="start anew where --output has an earlier run, which would otherwise be refused",
    )  # fmt: skip


def resume_path(output: Path) -> Path:
    """Where the full training state of a run is kept."""
    return output.with_name(f"{output.stem}_resume.pt")


def check_start(options: argparse.Namespace) -> None:
    """Find out whether a run would take the place of an earlier one; last of all checks.

    A run that torchrun or SLURM has started again goes on, as with ``--resume``. With
    ``--overwrite`` the state of the earlier run is removed, so that nothing goes on from it.

    Args:
        options: with ``output``, and those of :func:`add_run`, which may change.

    Raises:
        UserError: it would, and that was not asked for.
    """
    state = resume_path(options.output)
    if options.resume or not state.is_file():
        return
    if is_restart(state):
        options.resume, options.overwrite = True, False
    elif options.overwrite:
        state.unlink(missing_ok=True)  # each of several processes does
    else:
        raise UserError(
            f"--output {str(options.output)!r} has an earlier run ({state.name}); give --resume to "
            "go on with it, another --output, or --overwrite to start anew in its place"
        )


def add_opts(parser: Parser, option: str = "--opts") -> None:
    """Overrides of config keys, last on the line, after a word or ("opts") without one."""
    parser.add_argument(
        option, nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE",
        help="config overrides, last on the line",
    )  # fmt: skip


def check_there(options: argparse.Namespace, ways_out: Mapping[str, str]) -> None:
    """Check that files and folders are there, before anything is imported to read them.

    Args:
        options: of a command line; those that are None are passed over.
        ways_out: what to do, by name of the option.

    Raises:
        UserError: one is not.
    """
    for name, way_out in ways_out.items():
        value = getattr(options, name)
        if value is not None and not Path(value).exists():
            raise UserError(
                f"{option_name(name)} {value} is not there (no such file or folder); {way_out}"
            )


def check_dataset(option: str, name: str | None) -> None:
    """Check that a data set is known, or the yaml file or folder that stands for one is there.

    Raises:
        UserError: it is not.
    """
    if name is None or "detectron2" in sys.modules or Path(name).exists():
        return
    if name.endswith((".yaml", ".yml")):
        raise UserError(f"{option} {name} is not there (no such file); check the path")
    try:
        check_dataset_names([name])
    except UserError as error:
        raise UserError(f"{option}: {error}") from error


def check_ranges(options: argparse.Namespace, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Check that options lie in least..most, or are None.

    Raises:
        UserError: one does not.
    """
    for name, (least, most) in ranges.items():
        value = getattr(options, name)
        if value is None or (math.isfinite(value) and least <= value <= most):
            continue
        wanted = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise UserError(f"{option_name(name)} {value}: give {wanted}")
