"""The stickers: six emoji sets fetched as pinned npm packages and rendered to RGBA pictures.

A concept and a drawing meet by emoji code point. Packages of iconify name their drawings; three of
them carry a table from code point to name, the others are matched by the names that emojibase
gives the code point, and by :data:`NAME_OVERRIDES` where a set has words of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ovseg.data.stickerscenes.vocabulary import Concept
from ovseg.errors import UserError
from ovseg.utils.io import atomic_path

logger = logging.getLogger(__name__)

SPRITE_SIZE = 256
TRAIN_STYLES = ("twemoji", "emojione", "fxemoji", "fluent-emoji", "fluent-emoji-flat")
HELD_OUT_STYLES = ("noto",)


@dataclass(frozen=True)
class NpmPackage:
    """An npm package at a pinned version; ``integrity`` is npm's own (``sha512-<base64>``)."""

    name: str
    version: str
    integrity: str

    @property
    def archive(self) -> str:
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


EMOJIBASE = NpmPackage(
    "emojibase-data",
    "17.0.0",
    "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)
PACKAGES: dict[str, NpmPackage] = {
    "noto": NpmPackage(
        "@iconify-json/noto",
        "1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "twemoji": NpmPackage(
        "@iconify-json/twemoji",
        "1.2.5",
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
    ),
    "emojione": NpmPackage(
        "@iconify-json/emojione",
        "1.2.3",
        "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
    ),
    "fxemoji": NpmPackage(
        "@iconify-json/fxemoji",
        "1.2.2",
        "sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
    ),
    "fluent-emoji": NpmPackage(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
    ),
    "fluent-emoji-flat": NpmPackage(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
}
# fluent-emoji ships no table of code points, but names its drawings as fluent-emoji-flat does
CODE_POINT_TABLES = {"fluent-emoji": "fluent-emoji-flat"}
# names of sets with words of their own; None: the set's drawing of that name shows another thing
NAME_OVERRIDES: dict[str, dict[str, str | None]] = {
    "fxemoji": {
        "dog": "dogside",
        "cat": "catside",
        "pig": "pigside",
        "tiger": "tigerside",
        "mouse": "mouseside",
        "rabbit": "bunnyside",
        "evergreen tree": "evergreen",
        "eggplant": "aubergine",
        "corn": "earofmaize",
        "pizza": "sliceofpizza",
        "shoe": "mensshoe",
        "running shoe": "mensrunner",
        "mobile phone": "cellphone",
        "laptop": "personalcomputer",
        "t-shirt": "mansshirt",
        "backpack": "schoolsatchel",
        "ship": None,  # these two are drawn on a square of sea
        "sailboat": None,
    },
}


def fetch_package(package: NpmPackage, cache: Path) -> Path:
    """Return the folder of ``package`` under ``cache``, fetching and checking it when needed.

    Raises:
        UserError: npm is missing, the download failed, or the archive is not the pinned one.
    """
    folder = cache / package.archive.removesuffix(".tgz")
    if (folder / "package.json").is_file():
        return folder
    archive = cache / package.archive
    if not archive.is_file():
        _npm_pack(package, archive)
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != package.integrity:
        raise UserError(
            f"{archive} is not {package.name}@{package.version} as pinned (sha512 differs): "
            "delete it and run again"
        )
    scratch = cache / f".{folder.name}.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
    (scratch / "package").replace(folder)
    shutil.rmtree(scratch)
    return folder


def _npm_pack(package: NpmPackage, archive: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"npm was not found: install Node.js, or put {archive.name} into {archive.parent}"
        )
    archive.parent.mkdir(parents=True, exist_ok=True)
    spec = f"{package.name}@{package.version}"
    command = [npm, "pack", spec, "--silent", "--pack-destination", str(archive.parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0 or not archive.is_file():
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"npm pack {spec} failed ({reason}): check the network and run again")


def slugs(name: str) -> list[str]:
    """Spellings under which icon sets file ``name``: with hyphens, and all in one word."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower().replace("’", "").replace("'", "")).strip("-")
    return [slug, slug.replace("-", "")]


class IconSet:
    """One style: finds a concept's drawing in an iconify package and gives its SVG."""

    def __init__(self, style: str, icons: dict[str, Any], table: dict[str, str]) -> None:
        """``icons`` is ``icons.json``, ``table`` maps a code point such as ``1f412`` to a name."""
        self.style = style
        self._icons = icons
        self._table = table

    def find(self, concept: Concept, names: Iterable[str]) -> str | None:
        """Name of the drawing of ``concept``; ``names`` are further words for its code point."""
        known = self._icons["icons"].keys() | self._icons.get("aliases", {}).keys()
        overrides = NAME_OVERRIDES.get(self.style, {})
        if concept.name in overrides:
            return overrides[concept.name]
        if self._table:
            name = self._table.get(concept.emoji or "")
            return name if name in known else None
        candidates = (slug for name in [concept.name, *names] for slug in slugs(name))
        return next((slug for slug in candidates if slug in known), None)

    def svg(self, name: str) -> str:
        """The drawing as a document of its own; aliases are followed."""
        seen: dict[str, Any] = {}
        while name not in self._icons["icons"]:
            alias = self._icons["aliases"][name]
            seen = {**alias, **seen}
            name = alias["parent"]
        icon = {**self._icons["icons"][name], **seen}
        width = icon.get("width", self._icons.get("width", 16))
        height = icon.get("height", self._icons.get("height", 16))
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{width}" height="{height}" viewBox="{box}">{icon["body"]}</svg>'
        )


def load_icon_sets(cache: Path) -> dict[str, IconSet]:
    """Fetch what is missing and open all six styles."""
    folders = {style: fetch_package(package, cache) for style, package in PACKAGES.items()}
    sets = {}
    for style, folder in folders.items():
        icons = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
        table = folders[CODE_POINT_TABLES.get(style, style)] / "chars.json"
        sets[style] = IconSet(style, icons, json.loads(table.read_text(encoding="utf-8")) or {})
    return sets


def load_emoji_names(cache: Path) -> dict[str, list[str]]:
    """Code point (lower-case hex) to the label and short codes that emojibase knows for it."""
    folder = fetch_package(EMOJIBASE, cache) / "en"
    names: dict[str, list[str]] = {}
    for row in json.loads((folder / "data.json").read_text(encoding="utf-8")):
        names[_code_point(row["hexcode"])] = [row["label"]]
    for source in ("github", "iamcal", "cldr", "emojibase"):
        path = folder / "shortcodes" / f"{source}.json"
        for hexcode, codes in json.loads(path.read_text(encoding="utf-8")).items():
            codes = [codes] if isinstance(codes, str) else codes
            names.setdefault(_code_point(hexcode), []).extend(codes)
    return names


def _code_point(hexcode: str) -> str:
    return hexcode.lower().replace("-fe0f", "")


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
        with atomic_path(done) as path:
            path.write_text(json.dumps(signature))
    sprites = {}
    for path in sorted((cache / "sprites").glob("*/*.png")):
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
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
    with ProcessPoolExecutor(max_workers=max(1, num_workers)) as pool:
        results = pool.map(_render_file, jobs, chunksize=8)
        for _ in tqdm(results, total=len(jobs), desc="sprites", unit="drawing"):
            pass


def _render_file(job: tuple[str, Path]) -> None:
    svg, target = job
    cv2.imwrite(str(target), render_svg(svg)[..., [2, 1, 0, 3]])
