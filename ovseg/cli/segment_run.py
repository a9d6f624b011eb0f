"""Segmenting images one batch after the other, and saving or showing each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.windows import show
from ovseg.errors import UserError
from ovseg.results.files import ResultPaths, finish_results, save_result
from ovseg.utils.images import read_image

if TYPE_CHECKING:
    import numpy as np

    from ovseg.encoded_image import EncodedImage
    from ovseg.predictor import Predictor
    from ovseg.structures import GivenProposals
    from ovseg.vocabulary import Vocabulary


@dataclass
class SegmentRun:
    """A run over images.

    Attributes:
        predictor: does the work.
        vocabulary: the words to look for.
        plan: the images in their order, and where their results go; None: they are shown.
        formats: what is saved.
        model: what the JSON says of the model.
        palette: the classes' colours.
        batch_size: images that go through the model together.
        things: the classes that are things, for segments and instances; None: all.
        done: images whose results are there.
        errors: of images that failed, one line each.
    """

    predictor: Predictor
    vocabulary: Vocabulary
    plan: Mapping[Path, ResultPaths | None]
    formats: Sequence[str]
    model: Mapping[str, object]
    palette: str = "default"
    batch_size: int = 1
    things: Sequence[str] | None = None
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

    def _finish_one(self, path: Path, encoded: EncodedImage, seconds: float) -> bool:
        """Segment an image, and save or show it; False after Escape."""
        from ovseg.data.proposal_files import write_proposals

        began = time.perf_counter()
        prediction = encoded.segment(self.vocabulary)
        prediction.palette = self.palette
        asked = self.predictor.cfg.MODEL.MASK_FORMER.TEST
        words, things = self.vocabulary, self.things
        panoptic = encoded.panoptic(words, things) if asked.PANOPTIC_ON else None
        instances = encoded.instances(words, things) if asked.INSTANCE_ON else None
        seconds += time.perf_counter() - began
        if self.predictor.cfg.TEST.SAVE_PROPOSALS:
            file = Path(self.predictor.cfg.TEST.SAVE_PROPOSALS, f"{path.stem}.npz")
            write_proposals(file, encoded.regions)
        paths, go_on = self.plan[path], True
        if paths:
            about = {"file": str(path), "seconds": round(seconds, 3), "model": dict(self.model)}
            save_result(prediction, paths, about, self.formats, panoptic, instances)
        else:
            go_on = show((panoptic or prediction).overlay())
        self.done.append(path)
        return go_on

    def _encode(self, paths: Sequence[Path]) -> list[tuple[Path, EncodedImage, float]]:
        """Read and encode images together; each with its share of the seconds that it took."""
        good: list[tuple[Path, np.ndarray, GivenProposals | None]] = []
        for path in paths:
            try:
                image = read_image(path)
                good.append((path, image, self._given_proposals(path, image)))
            except UserError as error:
                self.errors.append(str(error))
        if not good:
            return []
        began = time.perf_counter()
        images, proposals = [each[1] for each in good], [each[2] for each in good]
        try:
            encoded = self.predictor.encode_batch(images, proposals)
        except UserError as error:
            if len(good) == 1:
                self.errors.append(str(error))
                return []
            return [one for path, _, _ in good for one in self._encode([path])]
        seconds = (time.perf_counter() - began) / len(good)
        return [(each[0], one, seconds) for each, one in zip(good, encoded, strict=True)]

    def _given_proposals(self, path: Path, image: np.ndarray) -> GivenProposals | None:
        """The proposals for an image that the config wants loaded; None for MaskFormer's."""
        from ovseg.data.proposal_files import find_proposals, read_proposals

        cfg = self.predictor.cfg
        if not cfg.TEST.LOAD_PROPOSALS:
            return None
        file = find_proposals(Path(cfg.TEST.LOAD_PROPOSALS), path)
        return read_proposals(file, image.shape[:2], cfg.MODEL.SEM_SEG_HEAD.EMBEDDING_DIM)


def finish(
    plan: Mapping[Path, ResultPaths | None], done: Sequence[Path], formats: Sequence[str]
) -> list[Path]:
    """Write the files of all images, in the plan's order, of those that are done."""
    complete = set(done)
    return finish_results([p for path, p in plan.items() if p and path in complete], formats)
