"""Segmenting images one batch after the other, and saving or showing each."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.cli.lean_imports import import_libraries
from ovseg.cli.windows import show
from ovseg.errors import UserError, line_of_one_image, say_error
from ovseg.found_images import FoundImages
from ovseg.results.files import ResultPaths, finish_results, save_result
from ovseg.utils.counting import counted
from ovseg.utils.images import read_image
from ovseg.utils.shares import own_share

if TYPE_CHECKING:
    import numpy as np

    from ovseg.cli.segmenters import Segmenter


@dataclass(frozen=True)
class SegmentJob:
    """What is to be segmented, by any number of processes.

    Attributes:
        segmenter: does the work; not loaded yet.
        plan: the images in their order, and where their results go; None: they are shown.
        there: images whose results an earlier run wrote.
        formats: what is saved.
        palette: the classes' colours.
        batch_size: images that go through the model together.
        found: what the command line gave.
    """

    segmenter: Segmenter
    plan: Mapping[Path, ResultPaths | None]
    there: Sequence[Path]
    formats: Sequence[str]
    palette: str
    batch_size: int
    found: FoundImages

    def left(self) -> list[Path]:
        """The images to do."""
        there = set(self.there)
        return [path for path in self.plan if path not in there]

    def end(self, done: Sequence[Path], errors: Sequence[str], seconds: float) -> None:
        """Write the files of all images and say what was done, of all processes.

        Args:
            done: images whose results are there now.
            errors: of images that failed, one line each.
            seconds: that it took.

        Raises:
            UserError: the only image failed.
            SystemExit: of several images, some failed.
        """
        if self.there:
            total = counted(len(self.plan), "image", "is/are")
            print(f"{len(self.there)} of {total} there already")
        files = self.finish(done)
        if done:
            place = self.plan[done[0]]
            where = f"; results in {place.folder}" if place else ""
            print(f"{counted(len(done), 'image')}, {seconds / len(done):.2f} s an image{where}")
        for file in files:
            print(f"all images: {file}")
        conclude(self.found, [*self.found.errors, *errors])

    def finish(self, done: Sequence[Path]) -> list[Path]:
        """Write the files of all images, in the plan's order, of those that are done."""
        complete = {*done, *self.there}
        paths = [paths for path, paths in self.plan.items() if paths and path in complete]
        return finish_results(paths, self.formats)


def segment_share(job: SegmentJob) -> None:
    """Segment the share of a process that :func:`ovseg.engine.processes.start` has started; the
    first process ends the job for all."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    import_libraries()  # this may be a new process
    from detectron2.utils import comm

    rank, world = comm.get_rank(), comm.get_world_size()
    if world == 1:
        segment_alone(job)
        return
    left, start = job.left(), time.perf_counter()
    mine = [left[place] for place in own_share(len(left), job.batch_size, rank, world)]
    run = SegmentRun(job, {path: job.plan[path] for path in mine}, shows_progress=rank == 0)
    if mine:
        job.segmenter.load()
        run.run()
    shares = comm.gather((run.done, run.errors))
    if rank == 0:
        done = [path for paths, _ in shares for path in paths]
        errors = [line for _, lines in shares for line in lines]
        job.end(done, errors, time.perf_counter() - start)


def segment_alone(job: SegmentJob) -> None:
    """Segment all of a job in this process."""
    job.segmenter.load()
    run = SegmentRun(job, {path: job.plan[path] for path in job.left()})
    start = time.perf_counter()
    try:
        run.run()
    except BaseException:
        job.finish(run.done)  # of an interrupted run
        raise
    job.end(run.done, run.errors, time.perf_counter() - start)


@dataclass
class SegmentRun:
    """A run of one process over its images.

    Attributes:
        job: what it is a share of.
        plan: its images, and where their results go.
        shows_progress: there is a bar.
        done: images whose results are there.
        errors: of images that failed, one line each.
    """

    job: SegmentJob
    plan: Mapping[Path, ResultPaths | None]
    shows_progress: bool = True
    done: list[Path] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Segment every image; until Escape where they are shown."""
        from tqdm import tqdm

        waiting = iter(self.plan)
        disabled = None if self.shows_progress else True
        with tqdm(total=len(self.plan), unit="image", disable=disabled) as progress:
            while batch := list(islice(waiting, self.job.batch_size)):
                for path, encoded, seconds in self._encode(batch):
                    try:
                        if not self._finish_one(path, encoded, seconds):
                            return
                    except Exception as error:
                        self._note(path, error)
                progress.update(len(batch))

    def _finish_one(self, path: Path, encoded: Any, seconds: float) -> bool:
        """Segment an image, and save or show it; False after Escape."""
        began = time.perf_counter()
        prediction, panoptic, instances = self.job.segmenter.segment(path, encoded)
        for result in (prediction, panoptic, instances):
            if result is not None:
                result.palette = self.job.palette
        seconds += time.perf_counter() - began
        paths, go_on = self.plan[path], True
        if paths:
            model = dict(self.job.segmenter.about)
            about = {"file": str(path), "seconds": round(seconds, 3), "model": model}
            save_result(prediction, paths, about, self.job.formats, panoptic, instances)
        else:
            go_on = show((panoptic or prediction).overlay())
        self.done.append(path)
        return go_on

    def _note(self, path: Path, error: Exception) -> None:
        """Keep the error of an image; raises what every image would fail with."""
        line = line_of_one_image(error)
        if line is None:
            raise error
        self.errors.append(line if isinstance(error, UserError) else f"{str(path)!r}: {line}")

    def _encode(self, paths: Sequence[Path]) -> list[tuple[Path, Any, float]]:
        """Read and encode images together; each with its share of the seconds that it took."""
        good: list[tuple[Path, np.ndarray]] = []
        for path in paths:
            try:
                good.append((path, read_image(path)))
            except UserError as error:
                self.errors.append(str(error))
        if not good:
            return []
        began = time.perf_counter()
        try:
            encoded = self.job.segmenter.encode(*zip(*good, strict=True))
        except Exception as error:
            if len(good) == 1:
                self._note(good[0][0], error)
                return []
            if line_of_one_image(error) is None:
                raise
            return [one for path, _ in good for one in self._encode([path])]
        seconds = (time.perf_counter() - began) / len(good)
        return [(each[0], one, seconds) for each, one in zip(good, encoded, strict=True)]


def conclude(found: FoundImages, errors: Sequence[str]) -> None:
    """Say what was passed over and what failed.

    Raises:
        UserError: a single image was given, and failed.
        SystemExit: of several, some failed.
    """
    several = len(found.images) + len(found.errors) > 1
    if found.others:
        print(f"passed over: {found.passed_over()}")
    if errors and not several:
        raise UserError(errors[0])
    for error in errors:
        say_error(error)
    if errors:
        raise SystemExit(1)
