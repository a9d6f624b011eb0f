"""Labelling a shard with one model: what each process does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from PIL import Image

from ovseg.data.label_shards import ENDINGS, shard_writer
from ovseg.encoded_image import EncodedImage
from ovseg.errors import line_of_one_image
from ovseg.labelling.output import Output
from ovseg.labelling.plan import Shard
from ovseg.labelling.reading import SourcePicture, read_pictures
from ovseg.prediction import Prediction, png_bytes
from ovseg.predictor import Predictor
from ovseg.released import local_weights
from ovseg.results.coco import run_lengths
from ovseg.utils.digests import file_digest
from ovseg.vocabulary import Vocabulary


@dataclass(frozen=True)
class LabelJob:
    """What is to be done with every shard.

    Attributes:
        cfg: of the model, with its weights.
        vocabulary: the words to look for.
        output: where the shards go.
        format: one of :data:`ovseg.data.label_shards.ENDINGS`.
        batch_size: images that go through the model together.
        column: of Parquet files, see :func:`ovseg.labelling.plan.image_column`.
        score_maps: write the score of each pixel too.
        copy_images: write a copy of each image too.
        min_score: a training with the labels ignores lower scores; None: not given, as 0.
    """

    cfg: CfgNode
    vocabulary: Vocabulary
    output: Output
    format: str = "parquet"
    batch_size: int = 1
    column: str | None = None
    score_maps: bool = False
    copy_images: bool = False
    min_score: float | None = None


class Labeller:
    """A model that labels shards."""

    def __init__(self, job: LabelJob) -> None:
        """Build the model and load its weights.

        Raises:
            UserError: the weights are missing or do not belong to this model.
        """
        self._job = job
        self._predictor = Predictor(job.cfg)

    def label(self, shard: Shard, seen: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Label the images of a shard and write its file, and then that it is done.

        Args:
            shard: what to label.
            seen: called with a number of images when these are done.

        Returns:
            ``file``, ``rows``, ``errors``, ``bytes`` and ``sha256`` of the file.
        """
        job = self._job
        record: dict[str, Any] = {
            "file": shard.name + ENDINGS[job.format], "rows": 0, "errors": 0
        }  # fmt: skip
        with job.output.file(record["file"]) as path:
            with shard_writer(job.format, path) as writer:
                for row in self._rows(shard, seen):
                    writer.write(row)
                    record["rows"] += 1
                    record["errors"] += row["error"] is not None
            record["bytes"] = path.stat().st_size
            record["sha256"] = file_digest(path)
        job.output.save_record(shard, record)
        return record

    def _rows(self, shard: Shard, seen: Callable[[int], None] | None) -> Iterator[dict[str, Any]]:
        job = self._job
        pictures = read_pictures(shard, 2 * job.batch_size, job.column, job.copy_images)
        place = 0
        while batch := list(islice(pictures, job.batch_size)):
            for picture, prediction in zip(batch, self._segment(batch), strict=True):
                yield self._row(f"{shard.number:06d}-{place:06d}", picture, prediction)
                place += 1
            if seen:
                seen(len(batch))

    def _segment(self, batch: Sequence[SourcePicture]) -> list[Prediction | str]:
        """The predictions of images, or why there is none."""
        images = [picture.image for picture in batch if picture.image is not None]
        done = iter(self._segment_images(images))
        return [picture.error if picture.image is None else next(done) for picture in batch]

    def _segment_images(self, images: Sequence[np.ndarray]) -> list[Prediction | str]:
        if not images:
            return []
        try:
            encoded: list[EncodedImage] = self._predictor.encode_batch(images)
            return [one.segment(self._job.vocabulary) for one in encoded]
        except Exception as error:
            reason = line_of_one_image(error)
            if reason is None:
                raise
            if len(images) > 1:
                return [result for image in images for result in self._segment_images([image])]
            size = f"{images[0].shape[1]} x {images[0].shape[0]} pixels"
            return [f"an image of {size} cannot be segmented ({reason})"]

    def _row(self, key: str, picture: SourcePicture, result: Prediction | str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "key": key, "source": picture.source, "image": None, "width": 0, "height": 0,
            "score": None, "segments": [], "error": None, "labels": None, "scores": None,
        }  # fmt: skip
        if picture.image is not None:
            row["height"], row["width"] = picture.image.shape[:2]
        if isinstance(result, str):
            return row | {"error": result}
        if self._job.copy_images:
            name = f"images/{key.partition('-')[0]}/{key}{_suffix(picture.content)}"
            with self._job.output.file(name) as path:
                path.write_bytes(picture.content)
            row["image"] = name
        found = result.labels >= 0
        if found.any():
            row["score"] = round(float(result.scores[found].mean()), 6)
        if self._job.score_maps:
            row["scores"] = png_bytes(Image.fromarray(_eight_bits(result.scores)))
        return row | {"labels": png_bytes(result.label_image()), "segments": segments_of(result)}


def segments_of(prediction: Prediction) -> list[dict[str, Any]]:
    """Of each class that was found its label, name, area, score and run-length encoded mask."""
    found = []
    for label in np.unique(prediction.labels[prediction.labels >= 0]).tolist():
        mask = prediction.labels == label
        found.append(
            {
                "label": label,
                "name": prediction.class_names[label],
                "area": int(mask.sum()),
                "score": round(float(prediction.scores[mask].mean()), 6),
                "rle": run_lengths(mask)["counts"],
            }
        )
    return found


def _suffix(content: bytes) -> str:
    """The ending of an image's file, by how it begins; readers do not need it."""
    known = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"GI": ".gif", b"BM": ".bmp"}
    return known.get(content[:2], ".tif" if content[:2] in {b"II", b"MM"} else "")


def _eight_bits(scores: np.ndarray) -> np.ndarray:
    return np.floor(scores.clip(0, 1) * 255).astype(np.uint8)


def checkpoint_digest(cfg: CfgNode) -> str:
    """What tells apart the weights of a model, whatever their path."""
    path = Path(local_weights(cfg.MODEL.WEIGHTS))
    return file_digest(path)[:16] if path.is_file() else str(cfg.MODEL.WEIGHTS)
