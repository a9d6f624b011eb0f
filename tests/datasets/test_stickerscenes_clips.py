"""Clips of moving scenes: the first frame is the scene, stuff stands still, stickers go on."""

from __future__ import annotations

import numpy as np

from stickerscenes.clips import moving_scenes
from stickerscenes.render import render_scene
from stickerscenes.scenes import Scene, Sticker, Surface
from stickerscenes.sprites import SpriteBook

SCENE = Scene(
    seed=5,
    upper=Surface(136, "sand", 1, 1.0),
    lower=None,
    horizon=None,
    stickers=(
        Sticker(7, "cat", "twemoji", 0.2, 0.3, 0.3, 0.3),
        Sticker(9, "dog", "twemoji", 0.98, 0.5, 0.2, 0.2),  # begins outside of the margin
    ),
    grain=0.02,
)


def test_motion() -> None:
    scenes = list(moving_scenes(SCENE, 120))
    assert scenes[0] == SCENE
    assert scenes == list(moving_scenes(SCENE, 120))
    assert len({scene.seed for scene in scenes}) == 120
    for scene in scenes:
        assert (scene.upper, scene.exposure) == (SCENE.upper, SCENE.exposure)
        assert [s.label for s in scene.stickers] == [7, 9]
    places = np.array([[(s.x, s.y) for s in scene.stickers] for scene in scenes])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=-1)
    # speed stays, whichever way a sticker goes; it is above nothing and at most the fastest
    np.testing.assert_allclose(steps, steps[:1].repeat(119, axis=0), rtol=1e-6)
    assert (steps > 0.003).all()
    assert (steps < 0.0121).all()
    assert places[:, 0].min() >= 0.1 - 0.012
    assert places.max() <= 0.98 + 0.012
    assert places[60:].max() <= 0.9 + 0.012


def test_the_truth_goes_along() -> None:
    red, blue = np.zeros((2, 64, 64, 4), np.uint8)
    red[...], blue[...] = (255, 0, 0, 255), (0, 0, 255, 255)
    book = SpriteBook({("twemoji", "cat"): red, ("twemoji", "dog"): blue})
    for scene in list(moving_scenes(SCENE, 40))[::13]:
        rendering = render_scene(scene, 64, book)
        cat = scene.stickers[0]
        rows, columns = np.nonzero(rendering.labels == 7)
        np.testing.assert_allclose((columns.mean() + 0.5) / 64, cat.x, atol=0.02)
        np.testing.assert_allclose((rows.mean() + 0.5) / 64, cat.y, atol=0.02)
        middle = rendering.image[round(64 * cat.y), round(64 * cat.x)]
        assert middle[0] > 150
        assert middle[2] < 100
