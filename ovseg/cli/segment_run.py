"""Segmenting images one batch after the other, and saving or showing each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.cli.windows import show
from ovseg.errors import UserError
from ovseg.results.files import ResultPaths, finish_results, save_result
from ovseg.utils.images import read_image

if TYPE_CHECKING:
    import numpy as np

    from ovseg.cli.segmenters import Segmenter


@dataclass
class SegmentRun:
    """A run over images.

    Attributes:
        segmenter: does the work.
        plan: the images in their order, and where their results go; None: they are shown.
        formats: what is saved.
        palette: the classes' colours.
        batch_size: images that go through the model together.
        done: images whose results are there.
        errors: of images that failed, one line each.
    """

    segmenter: Segmenter
    plan: Mapping[Path, ResultPaths | None]
    formats: Sequence[str]
    palette: str = "default"
    batch_size: int = 1
    done: list[Path] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Segment every image; until Escape where they are shown."""
        from tqdm import tqdm

        waiting = iter(self.plan)
        with tqdm(total=len(self.plan), unit="image", disable=None) as progress:
            while batch := list(islice(waiting, self.batch_size)):
                for path, encoded, seconds in self._encode(batch):
                    try:
                        if not self._finish_one(path, encoded, seconds):
                            return
                    except UserError as error:
                        self.errors.append(str(error))
                progress.update(len(batch))

    def _finish_one(self, path: Path, encoded: Any, seconds: float) -> bool:
        """Segment an image, and save or show it; False after Escape."""
        began = time.perf_counter()
        prediction, panoptic, instances = self.segmenter.segment(path, encoded)
        prediction.palette = self.palette
        seconds += time.perf_counter() - began
        paths, go_on = self.plan[path], True
        if paths:
            model = dict(self.segmenter.about)
            about = {"file": str(path), "seconds": round(seconds, 3), "model": model}
            save_result(prediction, paths, about, self.formats, panoptic, instances)
        else:
            go_on = show((panoptic or prediction).overlay())
        self.done.append(path)
        return go_on

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
            encoded = self.segmenter.encode(*zip(*good, strict=True))
        except UserError as error:
            if len(good) == 1:
                self.errors.append(str(error))
                return []
            return [one for path, _ in good for one in self._encode([path])]
        seconds = (time.perf_counter() - began) / len(good)
        return [(each[0], one, seconds) for each, one in zip(good, encoded, strict=True)]


def finish(
    plan: Mapping[Path, ResultPaths | None], done: Sequence[Path], formats: Sequence[str]
) -> list[Path]:
    """Write the files of all images, in the plan's order, of those that are done."""
    complete = set(done)
    return finish_results([p for path, p in plan.items() if p and path in complete], formats)
