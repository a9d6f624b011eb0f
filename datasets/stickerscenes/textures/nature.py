"""Painters of sky, plants, water and open ground."""

from __future__ import annotations

import cv2
import numpy as np

from stickerscenes.textures.canvas import Canvas, mix, painter, step


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
        picture = mix(
            picture, trunk * c.pick(0.6, 1.1), step(-np.abs(c.x - centre), -width, -width * 0.7)
        )
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
