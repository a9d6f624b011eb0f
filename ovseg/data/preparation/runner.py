"""Works off a list of jobs on all cores; what was finished before is skipped.

Threads do the work: nearly all of it is decoding and encoding, during which Pillow and OpenCV let
other threads run, and threads start at once, while each process would import PyTorch first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import cv2
from tqdm import tqdm

from ovseg.data.preparation.files import BrokenFileError
from ovseg.errors import UserError
from ovseg.utils.io import remove_abandoned


@dataclass(frozen=True)
class Job:
    """Something to be done for one image.

    Attributes:
        outputs: the files that ``work`` writes; when all are there the job is done.
        work: does it, and raises :class:`BrokenFileError` when a source cannot be used.
    """

    outputs: tuple[Path, ...]
    work: Callable[[], None]


@dataclass(frozen=True)
class Tally:
    """How many jobs were done now, had been done before, and failed."""

    done: int
    skipped: int
    failed: int


def run_jobs(
    jobs: Sequence[Job], num_workers: int, overwrite: bool = False, description: str = ""
) -> Tally:
    """Work off ``jobs`` with a progress bar; a failed one is a line on stderr, the rest go on.

    Args:
        num_workers: threads.
        overwrite: do finished jobs again too.
        description: stands before the progress bar.

    Raises:
        UserError: a folder or file cannot be written.
    """
    folders = {path.parent for job in jobs for path in job.outputs}
    finished: set[Path] = set().union(*map(_files_in, folders))
    pending = [
        job for job in jobs if overwrite or not all(path in finished for path in job.outputs)
    ]
    failed = 0
    with ThreadPool(num_workers) as pool, _single_threaded_opencv():
        errors = pool.imap_unordered(_attempt, pending)
        for error in tqdm(errors, total=len(pending), desc=description, unit="file"):
            if error is not None:
                failed += 1
                tqdm.write(f"error: {error}", file=sys.stderr)
    return Tally(len(pending) - failed, len(jobs) - len(pending), failed)


def _attempt(job: Job) -> str | None:
    try:
        job.work()
    except BrokenFileError as error:
        return " ".join(str(error).split())
    except OSError as error:  # what cannot be read is a BrokenFileError: this is about writing
        raise UserError(
            f"{job.outputs[0]} cannot be written ({error.strerror or error}); "
            "see whether the disk is full, and check --root"
        ) from error
    return None


def _files_in(folder: Path) -> set[Path]:
    """The files of an output folder, which is made; leftovers of a killed run are removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = set(folder.iterdir())
        remove_abandoned(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); check --root") from error
    return files


@contextmanager
def _single_threaded_opencv() -> Iterator[None]:
    """One thread a file is enough when every core has one."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
