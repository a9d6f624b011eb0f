"""The images of a shard, in their order, each read or with the reason why it cannot be."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.errors import UserError
from ovseg.labelling.plan import Shard, image_column, is_picture, open_table
from ovseg.labelling.sources import is_url
from ovseg.utils.ahead import run_ahead
from ovseg.utils.images import read_image
from ovseg.utils.io import readable_name

#: bytes of an image's file; larger ones are refused before they fill the memory
LARGEST_FILE = 1 << 30
_ROWS = 16  # of a Parquet file that are read at once

#: gives the path of an image on this machine, or the bytes of its file
Source = Callable[[], Path | bytes]


@dataclass
class SourcePicture:
    """An image of a collection.

    Attributes:
        source: its path or URL; in a tar or Parquet file ``FILE::MEMBER`` or ``FILE::ROW``.
        image: uint8 (H, W, 3), RGB; None: it cannot be read.
        error: why it cannot be read; empty if it can.
        content: the bytes of its file, where they were asked for.
    """

    source: str
    image: np.ndarray | None
    error: str = ""
    content: bytes = b""


def read_pictures(
    shard: Shard, ahead: int, column: str | None = None, content: bool = False
) -> Iterator[SourcePicture]:
    """The images of a shard in their order, read ahead by threads.

    Args:
        shard: what to read.
        ahead: images that are held before they are asked for.
        column: see :func:`ovseg.labelling.plan.image_column`.
        content: give the files' bytes too.
    """
    of_kind = {"files": _of_files, "tar": _of_tar, "parquet": _of_table}
    items = of_kind[shard.kind](shard, column)
    for _, reading in run_ahead(items, lambda item: _read(*item, content), ahead):
        yield reading.result()


def _read(source: str, get: Source, content: bool) -> SourcePicture:
    source = readable_name(source)  # tables hold UTF-8 alone
    try:
        found = get()
        if isinstance(found, bytes):
            return SourcePicture(source, _decode(found, source), content=found if content else b"")
        image = read_image(found)
        return SourcePicture(source, image, content=found.read_bytes() if content else b"")
    except UserError as error:
        return SourcePicture(source, None, error=" ".join(str(error).split()))
    except Exception as error:  # every file system has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        return SourcePicture(source, None, error=f"input {source!r} cannot be read ({reason})")


def _decode(content: bytes, source: str) -> np.ndarray:
    """An image of its file's bytes, by what reads all other images: a file."""
    if len(content) > LARGEST_FILE:
        raise UserError(f"input {source!r} has {len(content)} bytes, more than {LARGEST_FILE}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image")
        path.write_bytes(content)
        try:
            return read_image(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), source)) from error


def _of_files(shard: Shard, column: str | None) -> Iterator[tuple[str, Source]]:
    for name in shard.names:
        yield name, _file(name)


def _file(name: str) -> Source:
    return (lambda: _fetch(name)) if is_url(name) else (lambda: Path(name))


def _fetch(url: str) -> bytes:
    import fsspec

    with fsspec.open(url, "rb") as file:
        return file.read(LARGEST_FILE + 1)


def _of_tar(shard: Shard, column: str | None) -> Iterator[tuple[str, Source]]:
    """Members in their order; nothing is unpacked, and names are names alone."""
    import fsspec

    (name,) = shard.names
    try:
        with fsspec.open(name, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                if not is_picture(member):
                    continue
                source = f"{name}::{member.name}"
                stream = tar.extractfile(member)
                assert stream is not None  # it is a file
                yield source, _given(stream.read(LARGEST_FILE + 1))
    except Exception as error:  # a broken archive; what was before the break is there
        yield name, _broken(name, "a tar file", error)


def _of_table(shard: Shard, column: str | None) -> Iterator[tuple[str, Source]]:
    (name,) = shard.names
    row = 0
    try:
        with open_table(name) as table:
            wanted = image_column(table.schema_arrow.names, column, name)
            sizes = [table.metadata.row_group(n).num_rows for n in range(shard.groups[0])]
            row = sum(sizes)
            for batch in table.iter_batches(
                _ROWS, row_groups=list(shard.groups), columns=[wanted], use_threads=False
            ):
                for value in batch.column(0).to_pylist():
                    yield f"{name}::{row}", _cell(name, value)
                    row += 1
    except Exception as error:
        yield f"{name}::{row}", _broken(name, "a Parquet file", error)


def _cell(table: str, value: Any) -> Source:
    """A cell of a Parquet file: bytes, a path or URL, or a mapping of either, as in data sets of
    the Hugging Face Hub."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return _given(value)
    if isinstance(value, str) and value:
        beside = is_url(value) or value.startswith("/")
        return _file(value if beside else f"{table.rpartition('/')[0]}/{value}")
    return _broken(table, "an image", ValueError(f"a cell holds {type(value).__name__}"))


def _given(content: bytes) -> Source:
    return lambda: content


def _broken(name: str, kind: str, error: Exception) -> Source:
    reason = " ".join(str(error).split()) or type(error).__name__

    def fail() -> bytes:
        raise UserError(f"input {name!r} cannot be read on as {kind} ({reason})") from error

    return fail
