"""What a scene holds, independent of its resolution.

All lengths are fractions of the picture's side, all angles degrees, ``y`` grows downwards. Two
regions of stuff meet at a wavy horizon (or one texture fills everything); stickers lie on them in
order, later ones in front.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Surface:
    """One stuff region: its label and everything its texture is made from."""

    label: int
    name: str
    seed: int
    zoom: float


@dataclass(frozen=True)
class Horizon:
    """The border ``y = height + slope (x - 1/2) + amplitude sin(2 pi (frequency x + phase))``."""

    height: float
    slope: float
    amplitude: float
    frequency: float
    phase: float


@dataclass(frozen=True)
class Sticker:
    """One object: which drawing, where its centre is, and how it is turned and tinted."""

    label: int
    name: str
    style: str
    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0
    flip: bool = False
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    shadow: float = 0.0


@dataclass(frozen=True)
class Scene:
    """A whole picture; ``lower`` and ``horizon`` are absent when one texture fills it."""

    seed: int
    upper: Surface
    lower: Surface | None
    horizon: Horizon | None
    stickers: tuple[Sticker, ...]
    exposure: float = 1.0
    grain: float = 0.0
    caption: str = ""
