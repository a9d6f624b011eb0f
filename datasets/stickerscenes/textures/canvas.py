"""What painters of textures work with: coordinates, noise, cells, colours, and their registry."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Painter = Callable[["Canvas"], np.ndarray]
PAINTERS: dict[str, Painter] = {}


class Canvas:
    """Coordinates and random numbers for one texture of ``size`` x ``size`` pixels.

    ``x`` and ``y`` are float32 ``(size, size)`` in 0..1, ``zoom`` scales every pattern.
    """

    def __init__(self, seed: int, size: int, zoom: float = 1.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.size = size
        self.zoom = zoom
        centres = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.x, self.y = np.meshgrid(centres, centres)

    def noise(self, fx: float, fy: float | None = None) -> np.ndarray:
        """Smooth noise in 0..1, about ``fx`` x ``fy`` blobs in the picture, ``(size, size)``."""
        fx, fy = fx / self.zoom, (fx if fy is None else fy) / self.zoom
        columns, rows = max(1, round(fx)) + 3, max(1, round(fy)) + 3
        lattice = self.rng.random((rows, columns), dtype=np.float32)
        offset = self.rng.random(2)
        scale = np.array([[fx / self.size, 0, 1 + offset[0]], [0, fy / self.size, 1 + offset[1]]])
        return np.clip(
            cv2.warpAffine(
                lattice,
                scale,
                (self.size, self.size),
                flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REFLECT,
            ),
            0,
            1,
        )

    def fractal(self, fx: float, fy: float | None = None, octaves: int = 4) -> np.ndarray:
        """Sum of noises of doubling frequency in 0..1, mean near 0.5, ``(size, size)``."""
        fy = fx if fy is None else fy
        total = np.zeros((self.size, self.size), np.float32)
        for octave in range(octaves):
            total += self.noise(fx * 2**octave, fy * 2**octave) * 0.5**octave
        return total / (2 - 0.5 ** (octaves - 1))

    def pick(self, low: float, high: float) -> float:
        """A random parameter of this texture."""
        return float(self.rng.uniform(low, high))

    def colour(self, *choices: tuple[int, int, int], spread: float = 0.06) -> np.ndarray:
        """A blend of two of ``choices`` (RGB 0..255), a little varied; RGB 0..1, ``(3,)``."""
        table = np.asarray(choices, np.float32) / 255
        first, second = table[self.rng.integers(len(table), size=2)]
        mixed = first + (second - first) * self.rng.random()
        return np.clip(mixed + self.rng.uniform(-spread, spread, 3), 0, 1).astype(np.float32)

    def cells(self, rows: int, columns: int, stagger: float) -> tuple[np.ndarray, ...]:
        """Rows of blocks: a random value for each, and the distance to its edge in x and y."""
        v = self.y * rows / self.zoom
        row = np.floor(v).astype(np.int32)
        u = self.x * columns / self.zoom + stagger * (row % 2)
        column = np.floor(u).astype(np.int32)
        shade = self.rng.random(4096, dtype=np.float32)[(row * 57 + column * 13) % 4096]
        du = np.minimum(u - column, column + 1 - u)
        dv = np.minimum(v - row, row + 1 - v)
        return shade, du, dv

    def voronoi(self, count: int, squash: float = 1.0) -> tuple[np.ndarray, ...]:
        """Jittered cells: a random value for each, and how near (0) or far (1) its border is."""
        count = max(2, round(count / self.zoom))
        jitter = self.rng.uniform(-0.38, 0.38, (count + 2, count + 2, 2)).astype(np.float32)
        value = self.rng.random((count + 2, count + 2), dtype=np.float32)
        u, v = self.x * count, self.y * count
        column, row = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
        first = np.full(u.shape, 9.0, np.float32)
        second = first.copy()
        shade = np.zeros_like(first)
        for dr in (-1, 0, 1):
            for dc in (-1, 0, 1):
                r, c = np.clip(row + dr, -1, count), np.clip(column + dc, -1, count)
                shift = jitter[r + 1, c + 1]
                distance = np.hypot(
                    (c + 0.5 + shift[..., 0] - u) * squash, r + 0.5 + shift[..., 1] - v
                )
                nearer = distance < first
                second = np.where(nearer, first, np.minimum(second, distance))
                shade = np.where(nearer, value[r + 1, c + 1], shade)
                first = np.where(nearer, distance, first)
        return shade, second - first


def painter(name: str) -> Callable[[Painter], Painter]:
    """Register the painter of the stuff class ``name``."""

    def register(function: Painter) -> Painter:
        PAINTERS[name] = function
        return function

    return register


def mix(low: np.ndarray, high: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Blend colours ``(3,)`` or pictures ``(H, W, 3)`` by ``amount`` ``(H, W)`` in 0..1."""
    weight = np.clip(amount, 0, 1)[..., None]
    return low * (1 - weight) + high * weight


def step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Linear ramp from 0 at ``low`` to 1 at ``high``."""
    return np.clip((value - low) / (high - low), 0, 1)
