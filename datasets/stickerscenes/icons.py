"""Finding the drawing of a concept in an icon package.

A concept and a drawing meet by emoji code point. Packages of iconify name their drawings; three of
them carry a table from code point to name, the others are matched by the names that emojibase
gives the code point, and by :data:`NAME_OVERRIDES` where a set has words of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ovseg.data.stickerscenes import Concept
from stickerscenes.packages import EMOJIBASE, PACKAGES, fetch_package

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
