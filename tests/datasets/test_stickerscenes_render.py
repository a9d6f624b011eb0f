"""Scenes and their pixels, on made-up drawings."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from ovseg.data.stickerscenes import object_concepts, stuff_concepts
from ovseg.errors import UserError
from stickerscenes.generate import (
    CLIP_SPLIT,
    SEGMENTATION_SPLITS,
    hide_unseen,
    sample_split,
    write_clip_split,
    write_segmentation_split,
)
from stickerscenes.render import place_sticker, render_scene
from stickerscenes.scenes import Horizon, Scene, Sticker, Surface
from stickerscenes.sprites import SpriteBook
from stickerscenes.textures import PAINTERS, paint


def square(colour, size=64):
    sprite = np.zeros((size, size, 4), np.uint8)
    sprite[...] = (*colour, 255)
    return sprite


@pytest.fixture(scope="module")
def book():
    """Every object in two styles: a square, and for Noto a disc with a hole in its corner."""
    rng = np.random.default_rng(3)
    sprites = {}
    for concept in object_concepts():
        colour = rng.integers(0, 256, 3)
        sprites["twemoji", concept.name] = square(colour)
        disc = np.zeros((48, 64, 4), np.uint8)
        cv2.circle(disc, (32, 24), 20, (*(int(v) for v in colour), 255), -1)
        sprites["noto", concept.name] = disc
    return SpriteBook(sprites)


def hand_made():
    """16 x 16 pixels: sand above, water below row 8, a square 4..12, another 8..16 over it."""
    return Scene(
        seed=1,
        upper=Surface(136, "sand", 3, 1.0),
        lower=Surface(135, "water", 4, 1.0),
        horizon=Horizon(0.5, 0.0, 0.0, 1.0, 0.0),
        stickers=(
            Sticker(7, "cat", "twemoji", x=0.5, y=0.5, width=0.5, height=0.5),
            Sticker(9, "dog", "twemoji", x=0.75, y=0.75, width=0.5, height=0.5),
        ),
    )


def test_masks_are_those_of_an_independent_composition():
    book = SpriteBook(
        {("twemoji", "cat"): square((255, 0, 0)), ("twemoji", "dog"): square((0, 0, 255))}
    )
    rendering = render_scene(hand_made(), 16, book)
    labels = np.full((16, 16), 136)
    labels[8:] = 135
    labels[4:12, 4:12] = 7
    labels[8:16, 8:16] = 9
    np.testing.assert_array_equal(rendering.labels, labels)
    instances = np.where(labels == 7, 1, np.where(labels == 9, 2, 0))
    np.testing.assert_array_equal(rendering.instances, instances)
    assert (rendering.image[instances == 1] == (255, 0, 0)).all()
    assert (rendering.image[instances == 2] == (0, 0, 255)).all()
    assert rendering.image.dtype == rendering.labels.dtype == np.uint8


def test_a_scene_looks_the_same_at_any_size(book):
    scene = next(s for s in sample_split(SEGMENTATION_SPLITS["test"], book, 9) if s.stickers)
    scene = replace(scene, grain=0.0)
    small, large = render_scene(scene, 64, book), render_scene(scene, 192, book)
    shrunk = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
    difference = cv2.blur(shrunk, (9, 9)) - cv2.blur(small.image.astype(float), (9, 9))
    assert np.abs(difference).mean() < 8
    assert (large.labels[1::3, 1::3] == small.labels).mean() > 0.97


def test_stickers_turn_and_mirror():
    sprite = square((10, 10, 10), 32)
    sprite[:, 16:, :3] = 250  # the right half is bright
    upright = Sticker(0, "cat", "twemoji", 0.5, 0.5, 0.5, 0.5)
    colour, alpha = place_sticker(replace(upright, flip=True), sprite, 32)
    assert colour[16, 10].mean() > 0.9 > 0.1 > colour[16, 22].mean()
    assert alpha[8:24, 8:24].all()
    assert alpha.sum() == pytest.approx(256)
    colour, _ = place_sticker(replace(upright, angle=90.0), sprite, 32)
    assert colour[10, 16].mean() > 0.9 > 0.1 > colour[22, 16].mean()


def test_every_stuff_has_a_painter():
    assert {concept.name for concept in stuff_concepts()} == set(PAINTERS)


@pytest.mark.parametrize("name", list(PAINTERS))
def test_textures_repeat_and_differ(name):
    texture = paint(name, 5, 48)
    assert texture.shape == (48, 48, 3)
    assert texture.dtype == np.float32
    assert 0 <= texture.min() <= texture.max() <= 1
    assert texture.std() > 0.004
    np.testing.assert_array_equal(texture, paint(name, 5, 48))
    assert np.abs(texture - paint(name, 6, 48)).mean() > 0.003


def test_the_same_seed_is_the_same_scene(book):
    for split in (CLIP_SPLIT, *SEGMENTATION_SPLITS.values()):
        few, more = list(sample_split(split, book, 3)), list(sample_split(split, book, 5))
        assert few == more[:3]
        assert len(set(more)) == 5
    train, others = (
        sample_split(SEGMENTATION_SPLITS[name], book, 40) for name in ("train", "more")
    )
    assert not {*train} & {*others}
    assert SEGMENTATION_SPLITS["more"].hide_unseen
    # the same scenes, with the labels of all objects
    train, everything = SEGMENTATION_SPLITS["train"], SEGMENTATION_SPLITS["train_all"]
    assert [*sample_split(train, book, 40)] == [*sample_split(everything, book, 40)]
    assert (train.hide_unseen, everything.hide_unseen) == (True, False)
    assert train.size == everything.size


def test_splits_share_neither_textures_nor_styles(book):
    of_training = (CLIP_SPLIT, SEGMENTATION_SPLITS["train"], SEGMENTATION_SPLITS["more"])
    train = [s for split in of_training for s in sample_split(split, book, 40)]
    test = [s for name in ("dev", "test", "test_style")
            for s in sample_split(SEGMENTATION_SPLITS[name], book, 40)]  # fmt: skip
    seeds = [{t.seed % 2 for s in part for t in (s.upper, s.lower) if t} for part in (train, test)]
    assert seeds == [{0}, {1}]
    assert {t.style for s in train for t in s.stickers} == {"twemoji"}
    style = sample_split(SEGMENTATION_SPLITS["test_style"], book, 40)
    assert {t.style for s in style for t in s.stickers} == {"noto"}


def test_clip_scenes_hold_as_many_things_as_they_should(book):
    scenes = list(sample_split(CLIP_SPLIT, book, 1500))
    counts = np.bincount([len(scene.stickers) for scene in scenes]) / len(scenes)
    np.testing.assert_allclose(counts, [0.12, 0.572, 0.22, 0.088], atol=0.035)
    assert 0.3 < np.mean([scene.lower is None for scene in scenes]) < 0.4
    assert len({s.label for scene in scenes for s in scene.stickers}) == 168


def test_unseen_objects_are_ignored():
    labels = np.array([[0, 125, 126, 143], [144, 185, 150, 1]], np.uint8)
    expected = [[0, 125, 126, 143], [255, 255, 255, 1]]
    assert hide_unseen(labels).tolist() == expected


def test_files_do_not_depend_on_the_number_of_workers(book, tmp_path):
    split = replace(SEGMENTATION_SPLITS["train"], size=32)
    for workers in (1, 2):
        write_segmentation_split(split, tmp_path / str(workers), book, 6, workers)
        write_clip_split(tmp_path / str(workers), book, 4, workers)
    files = sorted(p.relative_to(tmp_path / "1") for p in (tmp_path / "1").rglob("*.*"))
    assert len(files) == 6 * 3 + 4 + 2
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()


def test_train_label_maps_hide_unseen_objects(book, tmp_path):
    split = replace(SEGMENTATION_SPLITS["train"], size=32)
    write_segmentation_split(split, tmp_path, book, 12, 1)
    hidden = 0
    for index, scene in enumerate(sample_split(split, book, 12)):
        path = tmp_path / "annotations" / "train" / f"{index:05d}.png"
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        full = render_scene(scene, 32, book).labels
        np.testing.assert_array_equal(labels == 255, full >= 144)
        np.testing.assert_array_equal(labels[full < 144], full[full < 144])
        hidden += int((labels == 255).sum())
    assert hidden > 0


def test_tables_of_a_whole_set_are_not_shortened(book, tmp_path):
    split = SEGMENTATION_SPLITS["dev"]
    for write in (
        lambda count, **how: write_segmentation_split(split, tmp_path, book, count, 1, **how),
        lambda count, **how: write_clip_split(tmp_path, book, count, 1, **how),
    ):
        write(2)
        with pytest.raises(UserError, match=r"lists 2 scenes, and --scale asks for 1: it would"):
            write(1)
        write(2)
        write(1, overwrite=True)
    assert len(json.loads((tmp_path / "captions_dev.json").read_text())["images"]) == 1
    assert len((tmp_path / "clip_train.csv").read_text().splitlines()) == 2


def test_a_stopped_run_draws_only_what_is_missing(book, tmp_path):
    split = replace(SEGMENTATION_SPLITS["dev"], size=24)
    assert write_segmentation_split(split, tmp_path, book, 5, 1) == 5
    (tmp_path / "images" / "dev" / "00003.png").unlink()
    assert write_segmentation_split(split, tmp_path, book, 5, 1) == 1
    assert write_segmentation_split(split, tmp_path, book, 5, 1, overwrite=True) == 5
