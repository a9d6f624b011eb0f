"""What the cases of input that cannot be used have in common.

A case is a function of an empty folder that returns a command line of `ovseg`, or a function to be
called. What is said of it stands in docs/bad-input.md, under the case's name.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import ROOT
from PIL import Image

from ovseg.utils.package_files import package_folder

Command = list[Any] | Callable[[], object]
CASES: dict[str, Callable[[Path], Command]] = {}

TINY = ROOT / "configs" / "ovseg_tiny_demo.yaml"
WEIGHTS = package_folder("resources") / "ovseg_tiny.pth"
#: what code in a file would make
RAN = "ran"


def case(make: Callable[[Path], Command]) -> Callable[[Path], Command]:
    """Register a case under the name of its function."""
    CASES[make.__name__] = make
    return make


class Code:
    """Pickled, it is a call that makes a file."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / RAN)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def photo(folder: Path, name: str = "photo.png") -> Path:
    """A sound image."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(path)
    return path


def written(path: Path, content: bytes | str) -> Path:
    """A file of this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def segment(folder: Path, *more: Any, input: Any = None, words: list[str] | None = None) -> Command:
    """`ovseg segment` of an image."""
    named = ["--class-names", *(words or ["grass", "water"])]
    given = photo(folder) if input is None else input
    return ["segment", "--input", given, "--output", folder / "out", *named, *more]


def deep(opening: str, closing: str, depth: int = 100_000) -> str:
    """Brackets in brackets."""
    return opening * depth + closing * depth


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that says it has this size."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + png_chunk(b"IEND", b"")


def aliases(count: int = 40) -> str:
    """A small yaml text of 10 ** 40 entries."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, count)]
    return "\n".join(lines) + "\n"


def data_set(folder: Path, text: str) -> Command:
    """`ovseg evaluate` on a data set of one's own."""
    file = written(folder / "data.yaml", text)
    return ["evaluate", "--config-file", ROOT / "configs" / "ovseg_tiny.yaml", "--dataset", file,
            "MODEL.WEIGHTS", WEIGHTS, "OUTPUT_DIR", folder / "out"]  # fmt: skip
