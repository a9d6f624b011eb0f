"""From a :class:`~stickerscenes.scenes.Scene` to pixels, at any size.

Everything is composed at twice the wanted size and averaged down, so borders are smooth in the
picture while label maps stay crisp.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stickerscenes.scenes import Horizon, Scene, Sticker, Surface
from stickerscenes.sprites import SpriteBook
from stickerscenes.textures import paint

SUPERSAMPLE = 2
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Rendering:
    """A rendered scene of ``size`` x ``size`` pixels.

    image: RGB uint8 ``(size, size, 3)``.
    labels: class of every pixel, uint8 ``(size, size)``.
    instances: 0 for stuff, ``i + 1`` where sticker ``i`` is in front, uint8 ``(size, size)``.
    """

    image: np.ndarray
    labels: np.ndarray
    instances: np.ndarray


def render_scene(scene: Scene, size: int, book: SpriteBook) -> Rendering:
    """Draw ``scene`` with the drawings of ``book``."""
    full = SUPERSAMPLE * size
    canvas = _surface(scene.upper, full)
    labels = np.full((size, size), scene.upper.label, np.uint8)
    if scene.lower is not None and scene.horizon is not None:
        below = _below(scene.horizon, full)
        canvas += (_surface(scene.lower, full) - canvas) * below[..., None]
        labels[_shrink(below, size) >= 0.5] = scene.lower.label
    instances = np.zeros((size, size), np.uint8)
    for index, sticker in enumerate(scene.stickers):
        colour, alpha = place_sticker(sticker, book[sticker.style, sticker.name], full)
        if sticker.shadow > 0:
            canvas *= 1 - sticker.shadow * _shadow(alpha, full)[..., None]
        canvas *= 1 - alpha[..., None]
        canvas += colour
        covered = _shrink(alpha, size) >= 0.5
        labels[covered] = sticker.label
        instances[covered] = index + 1
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) * scene.exposure
    noise = np.random.default_rng(scene.seed).standard_normal(image.shape, dtype=np.float32)
    image = np.clip((image + scene.grain * noise) * 255 + 0.5, 0, 255).astype(np.uint8)
    return Rendering(image, labels, instances)


def place_sticker(sticker: Sticker, sprite: np.ndarray, full: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale, mirror, turn and tint a drawing (RGBA uint8) on an empty canvas.

    Returns:
        colour times opacity, float32 ``(full, full, 3)`` in 0..1, and opacity ``(full, full)``.
    """
    width, height = (max(1, round(side * full)) for side in (sticker.width, sticker.height))
    picture = sprite[:, ::-1] if sticker.flip else sprite
    picture = picture.astype(np.float32) / 255
    grey = picture[..., :3] @ _LUMA
    tinted = grey[..., None] + (picture[..., :3] - grey[..., None]) * sticker.saturation
    tinted = np.clip(tinted * np.asarray(sticker.gain, np.float32), 0, 1)
    premultiplied = np.dstack([tinted * picture[..., 3:], picture[..., 3]])
    shrinks = width < picture.shape[1] and height < picture.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    scaled = cv2.resize(premultiplied, (width, height), interpolation=method)
    turn = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), sticker.angle, 1.0)
    turn[:, 2] += [sticker.x * full - width / 2, sticker.y * full - height / 2]
    placed = cv2.warpAffine(scaled, turn, (full, full), flags=cv2.INTER_LINEAR)
    return placed[..., :3], placed[..., 3]


def _surface(surface: Surface, full: int) -> np.ndarray:
    return paint(surface.name, surface.seed, full, surface.zoom)


def _below(horizon: Horizon, full: int) -> np.ndarray:
    """1 below the horizon, 0 above it, with a ramp of a pixel between."""
    centres = (np.arange(full, dtype=np.float32) + 0.5) / full
    wave = np.sin(2 * np.pi * (horizon.frequency * centres + horizon.phase))
    border = horizon.height + horizon.slope * (centres - 0.5) + horizon.amplitude * wave
    return np.clip((centres[:, None] - border[None, :]) * full + 0.5, 0, 1).astype(np.float32)


def _shadow(alpha: np.ndarray, full: int) -> np.ndarray:
    shift = np.float32([[1, 0, 0.012 * full], [0, 1, 0.02 * full]])  # type: ignore[arg-type]
    moved = cv2.warpAffine(alpha, shift, (full, full))
    return cv2.GaussianBlur(moved, (0, 0), 0.012 * full)


def _shrink(mask: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
