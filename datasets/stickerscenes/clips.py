"""Scenes that move: stickers drift and turn over still stuff, with the truth of every frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stickerscenes.scenes import Scene, Sticker

#: sides of the picture and degrees that a sticker goes in a frame, at most
_SPEED, _TURN = 0.012, 2.0
# centres turn back at this distance from the edge
_MARGIN = 0.1


def moving_scenes(scene: Scene, frames: int) -> Iterator[Scene]:
    """A scene as a clip; the motion depends on nothing but the scene.

    Every frame has its own grain, as of a camera's sensor.

    Args:
        scene: its first frame.
        frames: how many there are.
    """
    rng = np.random.default_rng([scene.seed, 1])
    headings = rng.uniform(0, 2 * np.pi, len(scene.stickers))
    speeds = rng.uniform(0.3, 1, len(scene.stickers)) * _SPEED
    turns = rng.uniform(-_TURN, _TURN, len(scene.stickers))
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * speeds[:, None]
    stickers = list(scene.stickers)
    for index in range(frames):
        yield replace(scene, stickers=tuple(stickers), seed=scene.seed + index)
        for i, sticker in enumerate(stickers):
            stickers[i], steps[i] = _moved(sticker, steps[i], float(turns[i]))


def _moved(sticker: Sticker, step: np.ndarray, turn: float) -> tuple[Sticker, np.ndarray]:
    place = np.array([sticker.x, sticker.y])
    target = place + step
    # only a step outwards turns back: a sticker may begin outside of the margin
    outwards = ((target < _MARGIN) & (step < 0)) | ((target > 1 - _MARGIN) & (step > 0))
    step = np.where(outwards, -step, step)
    x, y = (place + step).tolist()
    return replace(sticker, x=x, y=y, angle=sticker.angle + turn), step
