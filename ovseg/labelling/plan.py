"""A collection cut into shards, in the same way in every run."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from ovseg.errors import UserError
from ovseg.labelling.sources import Sources, is_url, suffix_of
from ovseg.utils.images import IMAGE_SUFFIXES

#: columns of Parquet files that hold images or their paths, the first that is there
IMAGE_COLUMNS = ("image", "jpg", "png", "img", "bytes", "image_bytes", "image_path", "path", "url")


@dataclass(frozen=True)
class Shard:
    """What is labelled at a time by one model, and becomes one file.

    Attributes:
        number: from 0.
        kind: "files", "tar" or "parquet".
        names: the images; or the one tar or Parquet file.
        groups: row groups of the Parquet file.
        images: how many there are; None: that shows when they are read.
    """

    number: int
    kind: str
    names: tuple[str, ...]
    groups: tuple[int, ...] = ()
    images: int | None = None

    @property
    def name(self) -> str:
        """Of its file, without the ending."""
        return f"labels-{self.number:06d}"

    def to_json(self) -> str:
        """For :meth:`of_json`."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def of_json(cls, text: str) -> Shard:
        """The shard that :meth:`to_json` wrote."""
        content = json.loads(text)
        for key in ("names", "groups"):
            content[key] = tuple(content[key])
        return cls(**content)


def make_plan(sources: Sources, shard_size: int, column: str | None = None) -> list[Shard]:
    """The shards of a collection.

    Single files come first, ``shard_size`` a shard. A tar file is a shard. Of a Parquet file,
    following row groups make a shard as long as they have no more rows together.

    Args:
        sources: the collection.
        shard_size: images of a shard.
        column: of the Parquet files' images; None: see :func:`image_column`.

    Raises:
        UserError: a Parquet file cannot be read, or has no such column.
    """
    shards: list[Shard] = []
    pictures = iter(sources.pictures)
    while names := tuple(islice(pictures, shard_size)):
        shards.append(Shard(len(shards), "files", names, images=len(names)))
    for name in sources.tars:
        shards.append(Shard(len(shards), "tar", (name,), images=_count_members(name)))
    for name in sources.tables:
        for groups, rows in _row_groups(name, shard_size, column):
            shards.append(Shard(len(shards), "parquet", (name,), groups, rows))
    return shards


def image_column(names: Iterable[str], wanted: str | None, file: str) -> str:
    """The column of a Parquet file that holds images: their bytes, or their paths or URLs.

    Raises:
        UserError: there is none.
    """
    names = list(names)
    for name in IMAGE_COLUMNS if wanted is None else (wanted,):
        if name in names:
            return name
    raise UserError(
        f"input {file!r} has the columns {', '.join(names)}; name that of the images with "
        f"--image-column{f', {wanted!r} is not there' if wanted else ''}"
    )


@contextmanager
def open_table(name: str) -> Iterator[Any]:
    """A Parquet file, as ``pyarrow.parquet.ParquetFile``, while the block runs.

    Raises:
        UserError: it cannot be read.
    """
    import fsspec

    from ovseg.data.label_shards import parquet

    module = parquet(f"input {name!r}")
    with ExitStack() as files:
        try:
            table = module.ParquetFile(files.enter_context(fsspec.open(name, "rb")))
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"input {name!r} cannot be read as a Parquet file ({reason}); give an intact one"
            ) from error
        yield table


def _row_groups(name: str, most: int, column: str | None) -> Iterator[tuple[tuple[int, ...], int]]:
    """Row groups that follow each other, and how many rows they have together."""
    with open_table(name) as table:
        image_column(table.schema_arrow.names, column, name)
        sizes = [table.metadata.row_group(n).num_rows for n in range(table.num_row_groups)]
    groups: list[int] = []
    for number, size in enumerate(sizes):
        if groups and sum(sizes[n] for n in groups) + size > most:
            yield tuple(groups), sum(sizes[n] for n in groups)
            groups = []
        groups.append(number)
    if groups:
        yield tuple(groups), sum(sizes[n] for n in groups)


def _count_members(name: str) -> int | None:
    """Images of a tar file, where that takes no reading: not packed, and on this machine."""
    if is_url(name) or not name.lower().endswith(".tar"):
        return None
    try:
        with tarfile.open(name, "r:") as tar:
            return sum(is_picture(member) for member in tar)
    except (OSError, tarfile.TarError):
        return None  # told when it is read


def is_picture(member: tarfile.TarInfo) -> bool:
    """Whether a member of a tar file is an image, by its name."""
    hidden = member.name.rpartition("/")[2].startswith(".")
    return member.isfile() and not hidden and suffix_of(member.name) in IMAGE_SUFFIXES
