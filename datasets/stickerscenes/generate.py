"""The splits of StickerScenes and how they are written to disk."""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ovseg.data.stickerscenes import unseen_labels
from ovseg.errors import UserError
from ovseg.utils.io import atomic_path, read_json, write_text
from stickerscenes.render import render_scene
from stickerscenes.sampler import Recipe, SceneSampler
from stickerscenes.scenes import Scene
from stickerscenes.sprites import HELD_OUT_STYLES, TRAIN_STYLES, SpriteBook

logger = logging.getLogger(__name__)

BASE_SEED = 2023
IGNORE_LABEL = 255
_CROWD = ((0.35, 0.75), (0.32, 0.6), (0.28, 0.52), (0.26, 0.46))


@dataclass(frozen=True)
class SceneSplit:
    """``number`` seeds the split: another for other scenes; ``count`` scenes of ``size`` pixels."""

    name: str
    number: int
    count: int
    size: int
    recipe: Recipe
    hide_unseen: bool = False


def _scenes(styles: tuple[str, ...], held_out: bool) -> Recipe:
    return Recipe(styles, (0.04, 0.26, 0.28, 0.22, 0.2), _CROWD, 0.12, 0.0, held_out)


# 12 % stuff only, the rest 65 / 25 / 10 % with one, two and three objects
_CLIP = Recipe(
    styles=TRAIN_STYLES,
    counts=(0.12, 0.88 * 0.65, 0.88 * 0.25, 0.88 * 0.10),
    sizes=((0.4, 0.95), (0.38, 0.65), (0.32, 0.52)),
    single_texture=0.35,
    close_up=0.4,
    held_out=False,
)
CLIP_SPLIT = SceneSplit("clip_train", 1, 40000, 64, _CLIP)
SEGMENTATION_SPLITS = {
    split.name: split
    for split in (
        SceneSplit("train", 2, 5000, 192, _scenes(TRAIN_STYLES, False), hide_unseen=True),
        SceneSplit("dev", 3, 300, 192, _scenes(TRAIN_STYLES, True)),
        SceneSplit("test", 4, 500, 192, _scenes(TRAIN_STYLES, True)),
        SceneSplit("test_style", 5, 300, 192, _scenes(HELD_OUT_STYLES, True)),
        SceneSplit("more", 6, 5000, 192, _scenes(TRAIN_STYLES, False), hide_unseen=True),
        # the scenes of "train" with the labels of unseen objects too
        SceneSplit("train_all", 2, 5000, 192, _scenes(TRAIN_STYLES, False)),
    )
}
#: what only some of the compared methods are trained on
FURTHER_SPLITS = ("more", "train_all")


def sample_split(split: SceneSplit, book: SpriteBook, count: int) -> Iterator[Scene]:
    """The first ``count`` scenes of ``split``; scene ``i`` depends on nothing but ``i``."""
    sampler = SceneSampler(split.recipe, book)
    return (sampler(BASE_SEED, split.number, index) for index in range(count))


def hide_unseen(labels: np.ndarray) -> np.ndarray:
    """Copy of a label map in which pixels of unseen objects are to be ignored."""
    return np.where(np.isin(labels, list(unseen_labels())), IGNORE_LABEL, labels).astype(np.uint8)


def write_clip_split(
    root: Path, book: SpriteBook, count: int, num_workers: int, overwrite: bool = False
) -> int:
    """Write ``clip_train/*.png`` and ``clip_train.csv`` (columns filepath, title).

    Paths in the table are relative to ``root``. Returns the number of pictures newly drawn.

    Raises:
        UserError: the table is there, and lists more.
    """
    table_file = root / "clip_train.csv"
    if table_file.is_file() and not overwrite:
        with table_file.open(newline="", encoding="utf-8") as table:
            _check_not_fewer(table_file, sum(1 for _ in csv.reader(table)) - 1, count)
    drawn, scenes = _write(CLIP_SPLIT, root, book, count, num_workers, overwrite)
    with (
        atomic_path(table_file) as path,
        path.open("w", newline="", encoding="utf-8") as table,
    ):
        writer = csv.writer(table)
        writer.writerow(["filepath", "title"])
        for index, caption in enumerate(scenes):
            writer.writerow([f"clip_train/{index:05d}.png", caption])
    return drawn


def write_segmentation_split(
    split: SceneSplit,
    root: Path,
    book: SpriteBook,
    count: int,
    num_workers: int,
    overwrite: bool = False,
) -> int:
    """Write images, label maps, instance maps and captions of ``split`` under ``root``.

    Returns the number of pictures newly drawn.

    Raises:
        UserError: the captions are there, and are of more scenes.
    """
    captions_file = root / f"captions_{split.name}.json"
    if captions_file.is_file() and not overwrite:
        listed = read_json(captions_file, dict, "give --overwrite").get("images", [])
        _check_not_fewer(captions_file, len(listed), count)
    drawn, captions = _write(split, root, book, count, num_workers, overwrite)
    side = {"height": split.size, "width": split.size}
    content = {
        "images": [{"id": i, "file_name": f"{i:05d}.png", **side} for i in range(count)],
        "annotations": [
            {"id": i, "image_id": i, "caption": caption} for i, caption in enumerate(captions)
        ],
    }
    write_text(captions_file, json.dumps(content))
    return drawn


def _check_not_fewer(table: Path, listed: int, count: int) -> None:
    if count < listed:
        raise UserError(
            f"{str(table)!r} lists {listed} scenes, and --scale asks for {count}: it would be "
            "shortened. Leave --scale out, set DETECTRON2_DATASETS to another folder, or give "
            "--overwrite"
        )


def _files(split: SceneSplit, root: Path, index: int) -> dict[str, Path]:
    name = f"{index:05d}.png"
    if split.name == CLIP_SPLIT.name:  # a worker has a copy
        return {"image": root / split.name / name}
    return {
        "instances": root / "instances" / split.name / name,
        "labels": root / "annotations" / split.name / name,
        "image": root / "images" / split.name / name,  # last: it stands for a finished scene
    }


def _write(
    split: SceneSplit, root: Path, book: SpriteBook, count: int, num_workers: int, overwrite: bool
) -> tuple[int, list[str]]:
    """Draw what is missing; returns how many were drawn, and all captions in order."""
    for path in _files(split, root, 0).values():
        path.parent.mkdir(parents=True, exist_ok=True)
    job = _Job(split, root, book, overwrite)
    captions: list[str] = []
    drawn = 0
    for caption, fresh in tqdm(
        _map(job, count, num_workers), total=count, desc=split.name, unit="scene"
    ):
        captions.append(caption)
        drawn += fresh
    return drawn, captions


class _Job:
    """Draws scene number ``index`` unless its files are there."""

    def __init__(self, split: SceneSplit, root: Path, book: SpriteBook, overwrite: bool) -> None:
        self.split, self.root, self.book, self.overwrite = split, root, book, overwrite
        self.sampler = SceneSampler(split.recipe, book)

    def __call__(self, index: int) -> tuple[str, bool]:
        scene = self.sampler(BASE_SEED, self.split.number, index)
        files = _files(self.split, self.root, index)
        if files["image"].is_file() and not self.overwrite:
            return scene.caption, False
        rendering = render_scene(scene, self.split.size, self.book)
        labels = hide_unseen(rendering.labels) if self.split.hide_unseen else rendering.labels
        arrays = {
            "image": rendering.image[..., ::-1],
            "labels": labels,
            "instances": rendering.instances,
        }
        for kind, path in files.items():
            with atomic_path(path) as temporary:
                if not cv2.imwrite(str(temporary), arrays[kind]):
                    raise OSError(f"could not write {path}")
        return scene.caption, True


_worker_job: Callable[[int], tuple[str, bool]] | None = None


def _start_worker(job: _Job) -> None:
    global _worker_job
    cv2.setNumThreads(1)
    _worker_job = job


def _run_in_worker(index: int) -> tuple[str, bool]:
    assert _worker_job is not None
    return _worker_job(index)


def _map(job: _Job, count: int, num_workers: int) -> Iterator[tuple[str, bool]]:
    if num_workers <= 1:
        yield from map(job, range(count))
        return
    # a forked process may wait for ever for threads that only its parent has
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, _start_worker, (job,)) as pool:
        yield from pool.map(_run_in_worker, range(count), chunksize=16)
