"""Eighteen procedural textures: sky, walls, floors and ground.

A texture is drawn from ``(name, seed)`` alone and in coordinates relative to the picture, so the
same texture can be had at any resolution. Every painter is a function of a
:class:`~stickerscenes.textures.canvas.Canvas`, which carries the pixel coordinates and
the texture's own random numbers, and returns RGB in 0..1.
"""

from __future__ import annotations

import numpy as np

# the painters register themselves
from stickerscenes.textures import built, nature  # noqa: F401
from stickerscenes.textures.canvas import PAINTERS, Canvas

__all__ = ["PAINTERS", "paint"]


def paint(name: str, seed: int, size: int, zoom: float = 1.0) -> np.ndarray:
    """Draw texture ``name``: RGB float32 ``(size, size, 3)`` in 0..1."""
    return np.clip(PAINTERS[name](Canvas(seed, size, zoom)), 0, 1).astype(np.float32)
