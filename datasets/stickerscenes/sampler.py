"""Drawing scenes by lot: which things, on what ground, where, how large and how turned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ovseg.data.stickerscenes import Concept, object_concepts, stuff_concepts
from stickerscenes.captions import make_caption
from stickerscenes.scenes import Horizon, Scene, Sticker, Surface
from stickerscenes.sprites import SpriteBook

# which backgrounds stand behind a ground, and which grounds suit a group of objects
_SKIES = ("blue sky", "sunset sky", "night sky")
_INDOOR_WALLS = ("painted wall", "brick wall", "stone wall")
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "grass": (*_SKIES, "forest", "wooden fence", "brick wall", "stone wall", "water"),
    "water": (*_SKIES, *_SKIES, "forest", "stone wall"),
    "sand": (*_SKIES, "water", "water", "stone wall", "wooden fence"),
    "snow": (*_SKIES, "forest", "forest", "wooden fence", "stone wall"),
    "wood floor": ("painted wall", "painted wall", "brick wall", "stone wall"),
    "tiled floor": _INDOOR_WALLS,
    "road": (*_SKIES, "forest", "brick wall", "wooden fence"),
    "dirt": (*_SKIES, "forest", "wooden fence", "stone wall"),
    "gravel": (*_SKIES, "forest", "stone wall", "brick wall", "wooden fence"),
    "carpet": ("painted wall", "painted wall", "brick wall"),
}
_INDOORS = ("wood floor", "tiled floor", "carpet")
HABITATS: dict[str, tuple[str, ...]] = {
    "animal-mammal": ("grass", "dirt", "sand", "snow", "gravel"),
    "animal-bird": ("grass", "dirt", "snow", "water"),
    "animal-amphibian": ("grass", "water", "gravel"),
    "animal-reptile": ("grass", "sand", "dirt", "gravel"),
    "animal-marine": ("water", "water", "sand"),
    "animal-bug": ("grass", "dirt", "gravel"),
    "plant-flower": ("grass", "dirt", "carpet"),
    "plant-other": ("grass", "dirt", "sand", "snow"),
    "transport-ground": ("road", "road", "gravel", "dirt"),
    "transport-water": ("water",),
    "transport-air": ("road", "water", "grass", "snow"),
    "sport": ("grass", "wood floor", "tiled floor"),
}
AIRBORNE = frozenset({"transport-air"})


@dataclass(frozen=True)
class Recipe:
    """How scenes of one split are drawn by lot.

    ``counts[n]`` is the chance of ``n`` objects; ``single_texture`` that of a picture without
    horizon; ``close_up`` that of a lone object filling the picture, as a tight crop would.
    ``held_out`` scenes take texture seeds that no other scene takes.
    """

    styles: tuple[str, ...]
    counts: tuple[float, ...]
    sizes: tuple[tuple[float, float], ...]
    single_texture: float
    close_up: float
    held_out: bool


class SceneSampler:
    """Draws scenes of one recipe; the same seed always gives the same scene."""

    def __init__(self, recipe: Recipe, book: SpriteBook) -> None:
        self.recipe = recipe
        self.book = book
        self._objects = [c for c in object_concepts() if book.styles_of(c.name, recipe.styles)]
        self._stuff = {concept.name: concept for concept in stuff_concepts()}

    def __call__(self, *seed: int) -> Scene:
        """Draw the scene of ``seed`` (one or more non-negative integers)."""
        rng = np.random.default_rng(seed)
        count = int(rng.choice(len(self.recipe.counts), p=self.recipe.counts))
        picks = rng.choice(len(self._objects), size=count, replace=False)
        concepts = [self._objects[index] for index in picks]
        upper, lower, horizon = self._surfaces(rng, concepts)
        stickers = self._stickers(rng, concepts, horizon)
        by_label = {concept.label: concept for concept in concepts}
        caption = make_caption(
            rng,
            sorted(by_label.values(), key=lambda c: -_area(stickers, c.label)),
            [self._stuff[s.name] for s in (lower, upper) if s is not None],
        )
        return Scene(
            seed=int(rng.integers(2**31)),
            upper=upper,
            lower=lower,
            horizon=horizon,
            stickers=stickers,
            exposure=float(rng.uniform(0.85, 1.12)),
            grain=float(rng.uniform(0.0, 0.025)),
            caption=caption,
        )

    def _surfaces(
        self, rng: np.random.Generator, concepts: list[Concept]
    ) -> tuple[Surface, Surface | None, Horizon | None]:
        grounds = list(BACKGROUNDS)
        if concepts and rng.random() < 0.6:
            grounds = list(HABITATS.get(concepts[0].group, _INDOORS))
        if rng.random() < self.recipe.single_texture:
            names = grounds if rng.random() < 0.5 else list(self._stuff)
            return self._surface(rng, names[rng.integers(len(names))]), None, None
        ground = grounds[rng.integers(len(grounds))]
        choices = BACKGROUNDS[ground]
        upper = self._surface(rng, choices[rng.integers(len(choices))])
        lower = self._surface(rng, ground)
        wavy = 0.25 if ground in _INDOORS else 1.0
        horizon = Horizon(
            height=float(rng.uniform(0.3, 0.7)),
            slope=float(wavy * rng.uniform(-0.15, 0.15)),
            amplitude=float(wavy * rng.uniform(0.0, 0.05)),
            frequency=float(rng.uniform(0.6, 2.5)),
            phase=float(rng.random()),
        )
        return upper, lower, horizon

    def _surface(self, rng: np.random.Generator, name: str) -> Surface:
        seed = 2 * int(rng.integers(2**30)) + int(self.recipe.held_out)
        return Surface(self._stuff[name].label, name, seed, float(rng.uniform(0.7, 1.7)))

    def _stickers(
        self, rng: np.random.Generator, concepts: list[Concept], horizon: Horizon | None
    ) -> tuple[Sticker, ...]:
        close_up = len(concepts) == 1 and rng.random() < self.recipe.close_up
        placed: list[Sticker] = []
        for concept in concepts:
            styles = self.book.styles_of(concept.name, self.recipe.styles)
            style = styles[rng.integers(len(styles))]
            height, width = self.book[style, concept.name].shape[:2]
            if close_up:
                size = rng.uniform(0.8, 1.06, 2)
            else:
                low, high = self.recipe.sizes[len(concepts) - 1]
                size = np.array([width, height]) / max(width, height) * rng.uniform(low, high)
                size *= np.exp(rng.uniform(-0.12, 0.12, 2))
            x, y = self._place(rng, concept, horizon, size, placed)
            gain = rng.uniform(0.85, 1.12) * rng.uniform(0.94, 1.06, 3)
            placed.append(
                Sticker(
                    label=concept.label,
                    name=concept.name,
                    style=style,
                    x=x,
                    y=y,
                    width=float(size[0]),
                    height=float(size[1]),
                    angle=float(np.clip(rng.normal(0, 10), -35, 35)),
                    flip=bool(rng.random() < 0.5),
                    gain=(float(gain[0]), float(gain[1]), float(gain[2])),
                    saturation=float(rng.uniform(0.7, 1.15)),
                    shadow=float(rng.uniform(0.1, 0.4) if rng.random() < 0.6 else 0.0),
                )
            )
        return tuple(placed)

    def _place(
        self,
        rng: np.random.Generator,
        concept: Concept,
        horizon: Horizon | None,
        size: np.ndarray,
        placed: list[Sticker],
    ) -> tuple[float, float]:
        """A centre inside the picture that hides as little of the earlier objects as possible."""
        best, least = (0.5, 0.5), np.inf
        margin = np.clip(0.46 * size, 0.0, 0.5)
        for _ in range(12):
            x, y = (float(rng.uniform(m, 1 - m)) for m in margin)
            if horizon is not None and rng.random() < 0.75:
                # things stand on the ground, aircraft fly over it
                if concept.group in AIRBORNE:
                    y = float(rng.uniform(margin[1], max(margin[1], horizon.height)))
                else:
                    low = float(np.clip(horizon.height - 0.3 * size[1], margin[1], 1 - margin[1]))
                    y = float(rng.uniform(low, 1 - margin[1]))
            hidden = max((_overlap(x, y, size, other) for other in placed), default=0.0)
            if hidden < least:
                best, least = (x, y), hidden
            if hidden < 0.3:
                break
        return best


def _overlap(x: float, y: float, size: np.ndarray, other: Sticker) -> float:
    """Shared area of two boxes as a fraction of the smaller one."""
    dx = min(x + size[0] / 2, other.x + other.width / 2) - max(
        x - size[0] / 2, other.x - other.width / 2
    )
    dy = min(y + size[1] / 2, other.y + other.height / 2) - max(
        y - size[1] / 2, other.y - other.height / 2
    )
    smaller = min(float(size[0] * size[1]), other.width * other.height)
    return max(dx, 0.0) * max(dy, 0.0) / smaller


def _area(stickers: Iterable[Sticker], label: int) -> float:
    return max(s.width * s.height for s in stickers if s.label == label)
