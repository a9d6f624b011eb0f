"""The stickers: drawings of six emoji sets, rendered once and kept as RGBA pictures."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ovseg.data.stickerscenes import Concept
from ovseg.errors import UserError
from ovseg.utils.io import write_text
from stickerscenes.icons import NAME_OVERRIDES, load_emoji_names, load_icon_sets
from stickerscenes.packages import PACKAGES

logger = logging.getLogger(__name__)

SPRITE_SIZE = 256
TRAIN_STYLES = ("twemoji", "emojione", "fxemoji", "fluent-emoji", "fluent-emoji-flat")
HELD_OUT_STYLES = ("noto",)


def render_svg(svg: str, size: int = SPRITE_SIZE) -> np.ndarray:
    """Render to RGBA uint8, cut to the drawn part, its longer side ``size`` pixels.

    Raises:
        UserError: ``resvg_py`` is not installed.
        ValueError: nothing is drawn.
    """
    try:
        import resvg_py
    except ImportError:
        raise UserError(
            "resvg_py is needed to render the artwork: pip install 'ovseg[stickerscenes]'"
        ) from None
    data = resvg_py.svg_to_bytes(
        svg_string=svg, width=2 * size, height=2 * size, skip_system_fonts=True
    )
    picture = cv2.imdecode(np.frombuffer(bytes(data), np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or not (picture[..., 3] > 127).any():
        raise ValueError("the drawing is empty")
    rows = np.flatnonzero((picture[..., 3] > 127).any(axis=1))
    columns = np.flatnonzero((picture[..., 3] > 127).any(axis=0))
    picture = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = size / max(picture.shape[:2])
    width, height = (max(1, round(side * scale)) for side in picture.shape[1::-1])
    # colours are averaged under their opacity, or borders would take the colour of nothing
    premultiplied = picture.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    small = cv2.resize(premultiplied, (width, height), interpolation=cv2.INTER_AREA)
    small[..., :3] *= 255 / np.maximum(small[..., 3:], 1e-3)
    return np.ascontiguousarray(np.clip(small + 0.5, 0, 255).astype(np.uint8)[..., [2, 1, 0, 3]])


class SpriteBook:
    """All drawings in memory: ``book[style, concept name]`` is RGBA uint8 ``(H, W, 4)``."""

    def __init__(self, sprites: dict[tuple[str, str], np.ndarray]) -> None:
        self._sprites = sprites

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        return self._sprites[key]

    def styles_of(self, name: str, styles: Iterable[str]) -> list[str]:
        """Those of ``styles`` that have a drawing of ``name``, in the given order."""
        return [style for style in styles if (style, name) in self._sprites]

    def __len__(self) -> int:
        return len(self._sprites)


def build_sprites(
    cache: Path, concepts: Iterable[Concept], num_workers: int = 1, overwrite: bool = False
) -> SpriteBook:
    """Render every drawing of ``concepts`` once into ``cache/sprites/<style>/`` and load them."""
    concepts = list(concepts)
    done = cache / "sprites" / "done.json"
    signature = {style: package.integrity for style, package in PACKAGES.items()}
    signature["names"] = hashlib.sha256(
        json.dumps([[c.name, c.emoji] for c in concepts] + [NAME_OVERRIDES, SPRITE_SIZE]).encode()
    ).hexdigest()
    if overwrite or not done.is_file() or json.loads(done.read_text()) != signature:
        shutil.rmtree(cache / "sprites", ignore_errors=True)
        _render_all(cache, concepts, num_workers)
        write_text(done, json.dumps(signature))
    sprites = {}
    for path in sorted((cache / "sprites").glob("*/*.png")):
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if picture is None:
            raise UserError(f"{path} cannot be read: delete it and {done.name}, and run again")
        name = path.stem.replace("_", " ")
        sprites[path.parent.name, name] = np.ascontiguousarray(picture[..., [2, 1, 0, 3]])
    return SpriteBook(sprites)


def _render_all(cache: Path, concepts: list[Concept], num_workers: int) -> None:
    names = load_emoji_names(cache)
    jobs: list[tuple[str, Path]] = []
    for style, icons in load_icon_sets(cache).items():
        (cache / "sprites" / style).mkdir(parents=True)
        before = len(jobs)
        for concept in concepts:
            icon = icons.find(concept, names.get(concept.emoji or "", []))
            if icon is not None:
                target = cache / "sprites" / style / f"{concept.name.replace(' ', '_')}.png"
                jobs.append((icons.svg(icon), target))
        logger.info("%s has %d of %d objects", style, len(jobs) - before, len(concepts))
    # a forked process may wait for ever for threads that only its parent has
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, num_workers), context) as pool:
        results = pool.map(_render_file, jobs, chunksize=8)
        for _ in tqdm(results, total=len(jobs), desc="sprites", unit="drawing"):
            pass


def _render_file(job: tuple[str, Path]) -> None:
    svg, target = job
    cv2.imwrite(str(target), render_svg(svg)[..., [2, 1, 0, 3]])
