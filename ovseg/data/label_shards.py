"""Shards of labelled images: what `ovseg label` writes and a training reads (docs/labelling.md).

A row is an image. In Parquet files it is a row; in WebDataset shards, tar files, its members are
``KEY.json``, ``KEY.labels.png`` and maybe ``KEY.scores.png``.

* ``key``: of this image among all; the numbers of its shard and of its place there.
* ``source``: path or URL of the image, in a tar or Parquet file ``FILE::MEMBER``, ``FILE::ROW``.
* ``image``: path, in the folder of the results, of a copy of the image; null without one.
* ``width``, ``height``: of the image; 0 if it cannot be read.
* ``score``: mean of the scores of all pixels with a class; null where there are none.
* ``segments``: of each class that was found ``label``, ``name``, ``area`` in pixels, ``score``, the
  mean over them, and ``rle``, COCO's compressed run lengths of the mask.
* ``error``: why there are no labels; null where there are.
* ``labels``: PNG of the label map: a pixel's value is its label; 255, in 16 bits 65535: no class.
* ``scores``: PNG of 8 bits, where asked for: a pixel's score, cut to 0..1, times 255, rounded down.
"""

from __future__ import annotations

import io
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from ovseg.errors import UserError

#: endings of the files by format
ENDINGS = {"parquet": ".parquet", "webdataset": ".tar"}
#: rows of a Parquet file's row group, which is read whole for one of them
GROUP_ROWS = 32
_PNGS = ("labels", "scores")


def parquet(what: str) -> ModuleType:
    """The module ``pyarrow.parquet``.

    Raises:
        UserError: pyarrow is not installed; begins with ``what`` needs it.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"{what} needs the package pyarrow; install it with: pip install pyarrow"
        ) from error
    module: ModuleType = pyarrow.parquet
    return module


class ShardWriter(ABC):
    """Writes the rows of a shard, one after the other."""

    @abstractmethod
    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row, see the head of this file; ``labels`` and ``scores`` are bytes or None."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""

    def __enter__(self) -> ShardWriter:
        """The writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def shard_writer(format: str, path: Path) -> ShardWriter:
    """A writer of one of :data:`ENDINGS`.

    Raises:
        UserError: pyarrow is not installed.
    """
    return _ParquetWriter(path) if format == "parquet" else _TarWriter(path)


class _ParquetWriter(ShardWriter):
    def __init__(self, path: Path) -> None:
        module = parquet("--format parquet")
        self._rows: list[dict[str, Any]] = []
        self._schema = _schema()
        self._writer = module.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, row: Mapping[str, Any]) -> None:
        self._rows.append(dict(row))
        if len(self._rows) == GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        self._writer.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
        self._rows = []

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


def _schema() -> Any:
    import pyarrow as pa

    segment = {
        "label": pa.int32(), "name": pa.string(), "area": pa.int64(), "score": pa.float64(),
        "rle": pa.string(),
    }  # fmt: skip
    return pa.schema(
        {
            "key": pa.string(), "source": pa.string(), "image": pa.string(),
            "width": pa.int32(), "height": pa.int32(), "score": pa.float64(),
            "segments": pa.list_(pa.struct(segment)), "error": pa.string(),
            "labels": pa.binary(), "scores": pa.binary(),
        }
    )  # fmt: skip


class _TarWriter(ShardWriter):
    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115  # see close

    def write(self, row: Mapping[str, Any]) -> None:
        told = {name: value for name, value in row.items() if name not in _PNGS}
        self._add(f"{row['key']}.json", json.dumps(told, ensure_ascii=False).encode())
        for name in _PNGS:
            if row[name] is not None:
                self._add(f"{row['key']}.{name}.png", row[name])

    def _add(self, name: str, content: bytes) -> None:
        # without time and user: the same images give the same file
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._tar.addfile(member, io.BytesIO(content))

    def close(self) -> None:
        self._tar.close()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say of a broken file which it is."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    except Exception as error:  # readers raise nearly anything on a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is no shard of labels ({reason}); label it again") from error


def told_rows(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, tuple[int, int]]]]:
    """The rows of a shard without their PNGs, and where these are.

    Yields:
        The row; and for ``labels`` and ``scores``, where they are there, the place of their bytes:
        in a tar file start and length, in a Parquet file row group and row.

    Raises:
        UserError: it is no such file.
    """
    with _naming(path):
        yield from _told_parquet(path) if path.suffix == ".parquet" else _told_tar(path)


def _told_parquet(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, tuple[int, int]]]]:
    with parquet(str(path)).ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name not in _PNGS]
        for group in range(file.num_row_groups):
            told = file.read_row_group(group, columns=names).to_pylist()
            empty = {name: _nulls(file, group, name) == len(told) for name in _PNGS}
            for number, row in enumerate(told):
                yield row, {name: (group, number) for name in _PNGS if not empty[name]}


def _nulls(file: Any, group: int, name: str) -> int:
    """How many rows of a column are empty; its statistics say it without its content."""
    about = file.metadata.row_group(group)
    # nested columns count as several there
    columns = (about.column(place) for place in range(about.num_columns))
    told = next(column.statistics for column in columns if column.path_in_schema == name)
    if told is not None and told.has_null_count:
        return int(told.null_count)
    return int(file.read_row_group(group, columns=[name]).column(0).null_count)


def _told_tar(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, tuple[int, int]]]]:
    for key, parts in tar_members(path):
        places = {name: parts[f"{name}.png"] for name in _PNGS if f"{name}.png" in parts}
        yield _told(path, key, parts), places


def tar_members(path: Path) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Of each row of a tar file its key, and where the bytes of its members are: start, length."""
    key, parts = "", dict[str, tuple[int, int]]()
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            name, _, ending = member.name.partition(".")
            if name != key and parts:
                yield key, parts
                parts = {}
            key = name
            parts[ending] = member.offset_data, member.size
    if parts:
        yield key, parts


def read_member(path: Path, start: int, length: int) -> bytes:
    """Bytes of a file."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _told(path: Path, key: str, parts: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    if "json" not in parts:
        raise ValueError(f"{key}.json is missing")
    row: dict[str, Any] = json.loads(read_member(path, *parts["json"]))
    return row
