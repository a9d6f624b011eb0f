"""Painters of what people make: walls, fences, floors, roads."""

from __future__ import annotations

import numpy as np

from stickerscenes.textures.canvas import Canvas, mix, painter, step


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
