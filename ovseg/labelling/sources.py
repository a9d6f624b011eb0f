"""Which images a collection has: folders, lists, patterns, tar and Parquet files, anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ovseg.errors import UserError
from ovseg.found_images import find_images
from ovseg.utils.images import IMAGE_SUFFIXES

_TAR = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Sources:
    """What a collection consists of: paths, or URLs that fsspec opens, each once.

    Attributes:
        pictures: single files.
        tars: WebDataset shards.
        tables: Parquet files.
    """

    pictures: list[str]
    tars: list[str]
    tables: list[str]


def find_sources(inputs: Sequence[str], recursive: bool = False) -> Sources:
    """Expand what a user gives.

    Args:
        inputs: images, folders of images, patterns, ``.txt`` files with an image a line,
            ``.tar`` and ``.parquet`` files; paths or URLs.
        recursive: take the images in the folders of a folder too.

    Raises:
        UserError: something is not there, or cannot be listed.
    """
    names: list[str] = []
    for given in inputs:
        found = _of_url(given, recursive) if is_url(given) else _of_path(given, recursive)
        for name in found:
            names += _read_list(name) if name.lower().endswith(".txt") else [name]
    if not names:
        raise UserError("no input; give images, folders, patterns, .txt, .tar or .parquet files")
    unique = list(dict.fromkeys(names))
    tars = [name for name in unique if name.lower().endswith(_TAR)]
    tables = [name for name in unique if name.lower().endswith(".parquet")]
    others = {*tars, *tables}
    return Sources([name for name in unique if name not in others], tars, tables)


def is_url(name: str) -> bool:
    """Whether a name is a URL for fsspec, not a path of this machine."""
    return "://" in name


def suffix_of(name: str) -> str:
    """``.jpg`` of a path or URL, in lower case."""
    return PurePosixPath(name.split("::")[0].split("?")[0]).suffix.lower()


def _of_path(given: str, recursive: bool) -> list[str]:
    found = find_images([given], recursive)
    if found.errors:
        hint = "; for tar or Parquet files give a pattern such as 'FOLDER/*.tar'"
        raise UserError(found.errors[0] + (hint if "holds no images" in found.errors[0] else ""))
    return [str(path.absolute()) for path in found.images]


def _of_url(given: str, recursive: bool) -> list[str]:
    from fsspec.core import url_to_fs
    from fsspec.utils import get_protocol

    try:
        files, path = url_to_fs(given)
        if any(mark in path for mark in "*[") and not files.exists(path):
            found = files.glob(path)
        elif suffix_of(given):  # a file, which is looked at when its turn comes
            return [given]
        else:
            listed = files.find(path, maxdepth=None if recursive else 1)
            found = [name for name in listed if suffix_of(name) in IMAGE_SUFFIXES]
    except Exception as error:  # every file system has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"input {given!r} cannot be listed ({reason}); check the URL") from error
    if not found:
        raise UserError(f"input {given!r}: nothing is there; check the URL")
    # of a chain (zip://*.jpg::https://...) the rest stays
    _, chain, rest = given.partition("::")
    protocol = get_protocol(given)
    return [f"{_with_protocol(name, protocol)}{chain}{rest}" for name in sorted(map(str, found))]


def _with_protocol(name: str, protocol: str) -> str:
    return name if is_url(name) else f"{protocol}://{name}"


def _read_list(name: str) -> Iterable[str]:
    """The images that a text file names, one a line; relative ones lie beside it."""
    import fsspec

    try:
        with fsspec.open(name, "rt", encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"list of images {name!r} cannot be read ({reason})") from error
    folder = name.rpartition("/")[0]
    entries = [line for line in lines if line]
    if not entries:
        raise UserError(f"list of images {name!r} is empty; write a path or URL a line")
    return [
        line if is_url(line) or line.startswith("/") else f"{folder}/{line}" for line in entries
    ]
