"""What tells apart contents: of files, texts, weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(parts: Iterable[str | bytes | memoryview]) -> str:
    """SHA-256 of all parts in their order, in hexadecimal; texts count as UTF-8."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part.encode() if isinstance(part, str) else part)
    return sha256.hexdigest()


def file_digest(path: str | Path) -> str:
    """The digest of a file's content, which may have gigabytes."""
    with open(path, "rb") as file:
        return digest(iter(lambda: file.read(1 << 20), b""))


def with_digest(path: str | Path) -> str:
    """A path and what tells apart the contents of a file, where it is one on this machine."""
    from detectron2.utils.file_io import PathManager  # not for files that are surely here

    try:
        if not PathManager.isfile(str(path)):
            return str(path)
    except NotImplementedError:  # on the net
        return str(path)
    content = file_digest(PathManager.get_local_path(str(path)))
    return f"{path} (sha256 {content[:16]})"
