"""Eighteen procedural textures: sky, walls, floors and ground.

A texture is drawn from ``(name, seed)`` alone and in coordinates relative to the picture, so the
same texture can be had at any resolution. Every painter is a function of a :class:`Canvas`, which
carries the pixel coordinates and the texture's own random numbers, and returns RGB in 0..1.
"""

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
        """Smooth noise in 0..1 with about ``fx`` x ``fy`` blobs in the picture, ``(size, size)``."""
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
        """One of ``choices`` (RGB 0..255) or a blend of two, a little varied; RGB 0..1, ``(3,)``."""
        table = np.asarray(choices, np.float32) / 255
        first, second = table[self.rng.integers(len(table), size=2)]
        mixed = first + (second - first) * self.rng.random()
        return np.clip(mixed + self.rng.uniform(-spread, spread, 3), 0, 1).astype(np.float32)

    def cells(self, rows: int, columns: int, stagger: float) -> tuple[np.ndarray, ...]:
        """Rows of blocks: block number, and the distance to its edge along x and y in block units."""
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


def paint(name: str, seed: int, size: int, zoom: float = 1.0) -> np.ndarray:
    """Draw texture ``name``: RGB float32 ``(size, size, 3)`` in 0..1."""
    return np.clip(PAINTERS[name](Canvas(seed, size, zoom)), 0, 1).astype(np.float32)


def mix(low: np.ndarray, high: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Blend colours ``(3,)`` or pictures ``(H, W, 3)`` by ``amount`` ``(H, W)`` in 0..1."""
    weight = np.clip(amount, 0, 1)[..., None]
    return low * (1 - weight) + high * weight


def step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Linear ramp from 0 at ``low`` to 1 at ``high``."""
    return np.clip((value - low) / (high - low), 0, 1)


@painter("blue sky")
def _blue_sky(c: Canvas) -> np.ndarray:
    top = c.colour((58, 120, 205), (80, 150, 230), (45, 105, 190))
    low = c.colour((165, 210, 245), (190, 225, 250))
    sky = mix(top, low, c.y * c.pick(0.7, 1.3))
    clouds = step(c.fractal(2.5, 5, 4), c.pick(0.45, 0.62), c.pick(0.68, 0.85))
    return mix(sky, np.ones(3, np.float32), clouds * c.pick(0.3, 0.95))


@painter("sunset sky")
def _sunset_sky(c: Canvas) -> np.ndarray:
    top = c.colour((95, 60, 120), (150, 70, 110), (70, 70, 140))
    middle = c.colour((235, 110, 80), (240, 140, 90))
    low = c.colour((255, 205, 110), (255, 180, 90))
    t = c.y + 0.12 * (c.fractal(1.5, 6, 3) - 0.5)
    bend = c.pick(0.4, 0.6)
    sky = np.where(
        (t < bend)[..., None],
        mix(top, middle, t / bend),
        mix(middle, low, (t - bend) / (1 - bend)),
    )
    bands = step(c.fractal(1.5, 9, 3), 0.5, 0.75)
    return mix(sky, c.colour((120, 60, 100), (255, 160, 120)), bands * c.pick(0.2, 0.6))


@painter("night sky")
def _night_sky(c: Canvas) -> np.ndarray:
    top = c.colour((8, 10, 32), (14, 18, 48), (5, 8, 22), spread=0.02)
    low = c.colour((30, 40, 90), (45, 40, 95), (20, 40, 75), spread=0.03)
    sky = mix(top, low, c.y**1.5 + 0.35 * (c.fractal(2, 3, 3) - 0.5))
    count = int(c.pick(45, 120))
    places, sizes = c.rng.random((count, 2)), c.rng.uniform(0.002, 0.0065, count)
    stars = np.zeros((c.size, c.size), np.float32)
    for (x, y), radius in zip(places, sizes, strict=True):
        centre = (int(x * c.size * 16), int(y * c.size * 16))
        cv2.circle(stars, centre, int(radius * c.size * 16) + 6, 1.0, -1, cv2.LINE_8, 4)
    return mix(sky, c.colour((255, 250, 220), (230, 240, 255)), stars)


@painter("brick wall")
def _brick_wall(c: Canvas) -> np.ndarray:
    rows = int(c.pick(9, 15))
    shade, du, dv = c.cells(rows, max(3, rows // 2), 0.5)
    brick = mix(
        c.colour((140, 60, 45), (165, 75, 55), (120, 50, 40)),
        c.colour((190, 105, 80), (200, 90, 60)),
        shade * 0.7 + 0.5 * (c.fractal(24) - 0.35),
    )
    mortar = c.colour((200, 190, 175), (170, 162, 150), (215, 208, 198))
    joint = c.pick(0.06, 0.11)
    line = np.maximum(step(-dv, -joint * 1.4, -joint * 0.8), step(-du, -joint * 0.7, -joint * 0.4))
    return mix(brick, mortar, line)


@painter("painted wall")
def _painted_wall(c: Canvas) -> np.ndarray:
    base = c.colour(
        (235, 225, 200), (200, 215, 225), (225, 205, 210), (205, 220, 195), (240, 240, 235),
        (190, 175, 205), (235, 215, 160), spread=0.04,
    )  # fmt: skip
    light = 0.16 * (c.fractal(1.2, octaves=2) - 0.5) + 0.03 * (c.fractal(50, octaves=2) - 0.5)
    shaded = base + (light + c.pick(-0.08, 0.08) * (c.x - 0.5))[..., None]
    if c.rng.random() < 0.35:  # wallpaper of soft stripes
        period = c.pick(0.06, 0.14) * c.zoom
        stripe = step(np.abs((c.x / period) % 1 - 0.5), 0.2, 0.3)
        shaded = shaded * (1 - c.pick(0.04, 0.1) * stripe[..., None])
    return shaded


@painter("stone wall")
def _stone_wall(c: Canvas) -> np.ndarray:
    shade, border = c.voronoi(int(c.pick(5, 9)), c.pick(0.6, 0.85))
    tone = shade * 0.8 + 0.6 * (c.fractal(20) - 0.4)
    stone = mix(
        c.colour((95, 95, 98), (110, 104, 96), (84, 88, 92)),
        c.colour((175, 172, 168), (160, 155, 145), (150, 158, 160)),
        tone,
    )
    mortar = c.colour((60, 58, 55), (75, 70, 64))
    return mix(mortar, stone * (0.8 + 0.25 * step(border, 0.05, 0.35))[..., None],
               step(border, 0.03, 0.12))  # fmt: skip


@painter("wooden fence")
def _wooden_fence(c: Canvas) -> np.ndarray:
    boards = int(c.pick(6, 11))
    shade, du, _ = c.cells(1, boards, 0.0)
    grain = c.fractal(boards * 6, 3, 3)
    wood = mix(
        c.colour((120, 78, 45), (140, 95, 60), (105, 72, 48)),
        c.colour((195, 145, 95), (180, 130, 80), (205, 165, 120)),
        0.55 * shade + 0.8 * (grain - 0.25),
    )
    gap = c.colour((40, 28, 18), (55, 70, 40), spread=0.02)
    picture = mix(gap, wood, step(du, 0.03, 0.08))
    for place in (c.pick(0.12, 0.3), c.pick(0.65, 0.85)):  # rails with a shadow below
        depth = c.y - place
        picture = mix(picture, picture * 0.45, ((depth > 0.05) & (depth < 0.07)).astype(np.float32))
        rail = wood.transpose(1, 0, 2) * 0.9
        picture = mix(picture, rail, ((depth > 0) & (depth < 0.05)).astype(np.float32))
    return picture


@painter("forest")
def _forest(c: Canvas) -> np.ndarray:
    picture = mix(
        c.colour((14, 40, 22), (20, 50, 25), (10, 35, 28)),
        c.colour((45, 95, 45), (60, 105, 40)),
        c.fractal(6, octaves=4) * 0.9,
    )
    trunk = c.colour((70, 48, 30), (88, 62, 40), (60, 50, 42))
    for _ in range(int(c.pick(4, 9) / max(c.zoom, 0.7))):
        centre = c.rng.random() + 0.02 * (c.noise(1, 4) - 0.5)
        width = c.pick(0.008, 0.025) * c.zoom
        picture = mix(picture, trunk * c.pick(0.6, 1.1), step(-np.abs(c.x - centre), -width, -width * 0.7))
    leaves = step(c.fractal(14, octaves=3), 0.52, 0.6)
    leafy = mix(
        c.colour((30, 90, 35), (45, 110, 40)), c.colour((110, 165, 60), (90, 150, 70)), c.noise(40)
    )
    return mix(picture, leafy, leaves * step(1.1 - c.y, 0.1, 0.5) * 0.95)


@painter("grass")
def _grass(c: Canvas) -> np.ndarray:
    blades = 0.6 * c.noise(90, 22) + 0.4 * c.noise(55, 14)
    tone = blades + 0.5 * (c.fractal(3, octaves=3) - 0.5)
    return mix(
        c.colour((45, 110, 30), (60, 125, 35), (40, 95, 40)),
        c.colour((140, 200, 70), (120, 185, 60), (150, 190, 85)),
        step(tone, 0.15, 0.9),
    )


@painter("water")
def _water(c: Canvas) -> np.ndarray:
    depth = c.y + 0.2 * (c.fractal(2, octaves=2) - 0.5)
    water = mix(
        c.colour((25, 95, 150), (20, 110, 150), (35, 120, 175)),
        c.colour((40, 145, 175), (30, 130, 165), (60, 160, 190)),
        depth,
    )
    waves = int(c.pick(9, 16)) / c.zoom
    wobble = 1.1 * c.fractal(4, 5, 3) + 0.5 * c.noise(12, 10)
    ripple = np.sin(2 * np.pi * (c.y * waves + wobble))
    crest = step(ripple, 0.55, 1.0) * step(c.noise(9, 16), 0.35, 0.7)
    water = water + 0.05 * ripple[..., None]
    return mix(water, c.colour((200, 235, 245), (225, 245, 250)), crest * c.pick(0.6, 0.9))


@painter("sand")
def _sand(c: Canvas) -> np.ndarray:
    ripple = np.sin(2 * np.pi * (c.y * c.pick(5, 12) / c.zoom + 1.5 * c.fractal(2, 2, 2)))
    tone = 0.5 + 0.14 * ripple + 0.9 * (c.noise(110) - 0.5) * 0.6
    return mix(
        c.colour((205, 170, 115), (215, 180, 125), (195, 165, 120), spread=0.03),
        c.colour((245, 220, 170), (240, 215, 160), spread=0.03),
        tone,
    )


@painter("snow")
def _snow(c: Canvas) -> np.ndarray:
    drift = c.fractal(2, 4, 3)
    snow = mix(
        c.colour((185, 205, 230), (195, 210, 228), spread=0.02),
        c.colour((250, 252, 255), (244, 249, 255), spread=0.01),
        step(drift, 0.2, 0.7),
    )
    return mix(snow, np.ones(3, np.float32), step(c.noise(100), 0.8, 0.95))


@painter("wood floor")
def _wood_floor(c: Canvas) -> np.ndarray:
    rows = int(c.pick(6, 10))
    shade, du, dv = c.cells(rows, 2, c.pick(0.3, 0.6))
    grain = 0.7 * c.noise(3, rows * 7) + 0.3 * c.noise(10, rows * 14)
    wood = mix(
        c.colour((125, 75, 40), (150, 95, 50), (100, 62, 38)),
        c.colour((205, 150, 95), (220, 170, 110), (185, 130, 80)),
        0.6 * shade + 0.55 * (grain - 0.15),
    )
    line = np.maximum(step(-dv, -0.07, -0.03), step(-du, -0.014, -0.007))
    return mix(wood, wood * 0.4, line)


@painter("tiled floor")
def _tiled_floor(c: Canvas) -> np.ndarray:
    count = int(c.pick(5, 9))
    shade, du, dv = c.cells(count, count, 0.0)
    light = c.colour((235, 235, 230), (215, 225, 230), (240, 228, 210), spread=0.03)
    dark = c.colour((90, 110, 130), (120, 75, 60), (60, 60, 65), (110, 135, 115))
    tile = light - 0.07 * shade[..., None]
    if c.rng.random() < 0.6:
        parity = (np.floor(c.x * count / c.zoom) + np.floor(c.y * count / c.zoom)) % 2
        tile = mix(tile, dark + 0.06 * shade[..., None], parity)
    line = step(-np.minimum(du, dv), -0.05, -0.025)
    return mix(tile, c.colour((150, 150, 148), (175, 170, 162)), line)


@painter("road")
def _road(c: Canvas) -> np.ndarray:
    tone = 0.5 + 0.5 * (c.noise(120) - 0.5) + 0.4 * (c.fractal(3, octaves=3) - 0.5)
    road = mix(
        c.colour((58, 58, 62), (70, 70, 72), (50, 52, 58), spread=0.02),
        c.colour((110, 110, 112), (98, 98, 104), spread=0.02),
        tone,
    )
    paint_colour = c.colour((235, 235, 230), (240, 200, 70), spread=0.02)
    tilt, place = c.pick(-0.3, 0.3), c.pick(0.25, 0.75)
    across = c.y - place - tilt * (c.x - 0.5)
    dashes = step(np.abs((c.x * c.pick(2, 4) / c.zoom + c.rng.random()) % 1 - 0.5), 0.16, 0.18)
    width = c.pick(0.018, 0.032) * c.zoom
    line = step(-np.abs(across), -width, -width * 0.8) * dashes
    return mix(road, paint_colour, line * 0.95)


@painter("dirt")
def _dirt(c: Canvas) -> np.ndarray:
    clods = c.fractal(9, octaves=5)
    soil = mix(
        c.colour((70, 45, 28), (85, 55, 35), (75, 52, 38), spread=0.03),
        c.colour((150, 105, 70), (140, 95, 60), (160, 115, 80), spread=0.03),
        step(clods, 0.25, 0.75),
    )
    return mix(soil, soil * 0.5, step(c.noise(26), 0.78, 0.9))


@painter("gravel")
def _gravel(c: Canvas) -> np.ndarray:
    shade, border = c.voronoi(int(c.pick(17, 26)))
    stones = mix(
        c.colour((95, 92, 88), (105, 98, 90), (88, 90, 95), spread=0.03),
        c.colour((220, 216, 210), (205, 200, 190), (210, 212, 216), spread=0.03),
        shade,
    )
    return stones * (0.35 + 0.65 * step(border, 0.0, 0.22))[..., None]


@painter("carpet")
def _carpet(c: Canvas) -> np.ndarray:
    base = c.colour((150, 45, 50), (60, 80, 140), (70, 110, 90), (130, 90, 140), (170, 130, 80))
    other = c.colour((225, 200, 150), (190, 70, 70), (100, 130, 180), (215, 180, 120))
    count = int(c.pick(4, 7)) / c.zoom
    u, v = c.x * count % 1 - 0.5, c.y * count % 1 - 0.5
    diamond = np.abs(u) + np.abs(v)
    motif = step(-np.abs(diamond - 0.34), -0.06, -0.03) + step(-diamond, -0.14, -0.11)
    weave = 0.5 * c.noise(120, 60) + 0.5 * c.noise(60, 120)
    return mix(base, other, motif) * (0.72 + 0.5 * weave)[..., None]
