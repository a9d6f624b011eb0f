"""The command line that the preparation scripts share."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ovseg.data.preparation.runner import Job, run_jobs
from ovseg.data.splits import data_root
from ovseg.errors import Parser, UserError, cli_errors

logger = logging.getLogger(__name__)
Plan = Callable[[Path, str], list[Job]]
SPLITS = ("train", "val")


def parse_arguments(
    description: str | None, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description)
    parser.add_argument(
        "--root",
        type=Path,
        default=data_root(),
        help="folder of data sets (default: $DETECTRON2_DATASETS, else ./datasets)",
    )
    parser.add_argument(
        "--split", nargs="+", choices=SPLITS, help="prepare these (default: those that are there)"
    )
    parser.add_argument(
        "--num-workers", type=int, default=_cores(), help="threads (default: one a core)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write again what is there (default: skip it)"
    )
    return parser.parse_args(arguments)


def run(description: str | None, plan: Plan) -> NoReturn:
    """All that a script does: :func:`prepare`, as its command line asks; ends the process."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with cli_errors():
        sys.exit(prepare(description, plan))


def prepare(description: str | None, plan: Plan, arguments: Sequence[str] | None = None) -> int:
    """Prepare the splits of one archive as the command line asks.

    Args:
        description: for ``--help``.
        plan: the jobs of a split of the archive under a root; raises when it is not there.

    Returns:
        The exit code: 0, or 1 when files could not be used; the others are done then.

    Raises:
        UserError: nothing can be prepared, or an argument cannot be used.
    """
    options = parse_arguments(description, arguments)
    if options.num_workers < 1:
        raise UserError(f"--num-workers {options.num_workers} is less than 1")
    if not options.root.is_dir():
        raise UserError(
            f"--root {options.root}: there is no such folder; give that of your data sets, or set "
            "DETECTRON2_DATASETS"
        )
    failed = 0
    for split, jobs in _plans(plan, options.root, options.split).items():
        began = time.monotonic()
        tally = run_jobs(jobs, options.num_workers, options.overwrite, split)
        seconds = time.monotonic() - began
        logger.info(
            "%s: %d images: %d prepared, %d there already, %d failed; %.1f s, %.0f images a second",
            split,
            len(jobs),
            tally.done,
            tally.skipped,
            tally.failed,
            seconds,
            (tally.done + tally.failed) / seconds,
        )
        failed += tally.failed
    if failed:
        logger.info("%d failed: mend what the error lines name and run the command again", failed)
    return 1 if failed else 0


def _plans(plan: Plan, root: Path, splits: list[str] | None) -> dict[str, list[Job]]:
    """The jobs of each split; without a choice, of the splits that are there."""
    if splits:
        return {split: plan(root, split) for split in splits}
    found: dict[str, list[Job]] = {}
    missing: dict[str, UserError] = {}
    for split in SPLITS:
        try:
            found[split] = plan(root, split)
        except UserError as error:
            missing[split] = error
    if not found:
        raise missing["val"]
    for split, reason in missing.items():
        logger.info("%s: left out, %s", split, reason)
    return found


def _cores() -> int:
    """The cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
