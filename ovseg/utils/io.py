"""Folders to write to, and files written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ovseg.errors import UserError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it only when the block succeeds.

    The temporary name keeps the suffix of ``path``, since image writers choose the format by it.
    Missing parent folders are made. When the block raises, ``path`` is left as it was.

    Raises:
        IsADirectoryError: ``path`` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    # not by tempfile, whose files are private: a result has the permissions of any other file
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(6)}{target.suffix}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike[str], argument: str) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        UserError: it cannot be made; names ``argument``.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{argument} {str(path)!r} cannot be made ({error.strerror}); give another folder"
        ) from error


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write ``content`` as JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        text = json.dumps(content, indent=1, ensure_ascii=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str], kind: type, way_out: str = "delete it") -> Any:
    """Read a JSON file whose content is of the type ``kind``.

    Raises:
        UserError: it cannot be read, or holds something else; ends with ``way_out``.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); {way_out}") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} is broken; {way_out}")
    return content
