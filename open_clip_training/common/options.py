"""Options that several command lines here have, and checks of options."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from ovseg.data.splits import check_dataset_names
from ovseg.errors import Parser, UserError
from ovseg.utils.settings import option_name

SEEDS = (0, 2**32 - 1)  # what every generator takes


def add_run(parser: Parser, seed: int = 0) -> None:
    """``--seed`` and ``--resume``, which every training has."""
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--resume", action="store_true", help="continue a stopped run")


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
