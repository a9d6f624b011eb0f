"""What tells apart contents: of files, texts, weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from detectron2.utils.file_io import PathManager


def digest(parts: Iterable[str | bytes | memoryview]) -> str:
    """SHA-256 of all parts in their order, in hexadecimal; texts count as UTF-8."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part.encode() if isinstance(part, str) else part)
    return sha256.hexdigest()


def with_digest(path: str | Path) -> str:
    """A path and what tells apart the contents of a file, where it is one on this machine."""
    try:
        if not PathManager.isfile(str(path)):
            return str(path)
    except NotImplementedError:  # on the net
        return str(path)
    with open(PathManager.get_local_path(str(path)), "rb") as file:
        # checkpoints may have gigabytes
        content = digest(iter(lambda: file.read(1 << 20), b""))
    return f"{path} (sha256 {content[:16]})"
