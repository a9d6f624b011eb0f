"""The folder of the results: on this machine, or wherever fsspec writes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from ovseg.errors import UserError
from ovseg.labelling.plan import Shard
from ovseg.labelling.sources import is_url
from ovseg.utils.io import atomic_path, check_is_there, make_folder, remove_abandoned

MANIFEST = "manifest.json"
_DONE = "done"


class Output:
    """A folder in which files appear whole or not at all."""

    def __init__(self, place: str) -> None:
        """A path of this machine, or a URL that fsspec writes to."""
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        """Goes to other processes by its place."""
        return Output, (self.place,)

    @cached_property
    def _remote(self) -> Any:
        """fsspec's file system and the path there; None for a folder of this machine."""
        if not is_url(self.place):
            return None
        from fsspec.core import url_to_fs

        try:
            return url_to_fs(self.place)
        except (ImportError, ValueError) as error:
            raise UserError(f"--output {self.place!r} cannot be opened ({error})") from error

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A path to write to; the file has its name when the block succeeds.

        Raises:
            UserError: elsewhere, it cannot be written; here, the folder has vanished.
            OSError: here, it cannot be written.
        """
        if self._remote is None:
            check_is_there(Path(self.place))
            with atomic_path(Path(self.place, name)) as path:
                yield path
            return
        files, folder = self._remote
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, name.rpartition("/")[2])
            yield path
            target = f"{folder}/{name}"
            try:
                files.makedirs(target.rpartition("/")[0], exist_ok=True)
                # some file systems show a file while it is written
                files.put_file(str(path), f"{target}.part")
                files.mv(f"{target}.part", target)
            except Exception as error:  # every file system has errors of its own
                raise UserError(
                    f"--output {self.place!r}: {name} cannot be written ({error})"
                ) from (error)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        with self.file(name) as path:
            path.write_text(text, encoding="utf-8", errors="backslashreplace")

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file."""
        self.write_text(name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def read_text(self, name: str) -> str | None:
        """A text file; None: it is not there.

        Raises:
            UserError: it cannot be read.
        """
        try:
            if self._remote is None:
                return Path(self.place, name).read_text(encoding="utf-8")
            files, folder = self._remote
            return str(files.read_text(f"{folder}/{name}", encoding="utf-8"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise UserError(
                f"--output {self.place!r}: {name} cannot be read ({error}); give another folder, "
                "or delete this one"
            ) from error

    def read_json(self, name: str) -> Any:
        """The content of a JSON file; None: it is not there.

        Raises:
            UserError: it cannot be read.
        """
        text = self.read_text(name)
        try:
            return None if text is None else json.loads(text)
        except ValueError as error:
            raise UserError(
                f"--output {self.place!r}: {name} is broken; give another folder, or delete "
                "this one"
            ) from error

    def refuse_file(self) -> None:
        """Find out whether a file has its path.

        Raises:
            UserError: one has.
        """
        if self._remote is None and Path(self.place).is_file():
            raise UserError(f"--output {self.place!r} is a file; give a folder")

    def check(self) -> None:
        """Make the folder.

        Raises:
            UserError: it cannot be made.
        """
        if self._remote is None:
            make_folder(self.place, "--output")

    def remove_abandoned(self) -> None:
        """Remove what killed workers of this machine have left of their files."""
        if self._remote is None:
            remove_abandoned(Path(self.place))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of each file in the folder, or in one inside of it, by name."""
        if self._remote is None:
            here = Path(self.place, folder)
            paths = here.iterdir() if here.is_dir() else ()
            return {path.name: path.stat().st_size for path in paths if path.is_file()}
        files, path = self._remote
        try:
            listed = files.ls(f"{path}/{folder}".rstrip("/"), detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        return {entry["name"].rpartition("/")[2]: entry.get("size") or 0 for entry in listed}

    def save_record(self, shard: Shard, record: Mapping[str, Any]) -> None:
        """Write that a shard is done, after its file is there."""
        self.write_json(f"{_DONE}/{shard.name}.json", record)

    def records(self, shards: list[Shard]) -> dict[int, dict[str, Any]]:
        """Of each shard that is done what :meth:`save_record` wrote, by its number.

        One whose file is gone, or has another size, is not done.
        """
        there, sizes = self.sizes(_DONE), self.sizes()
        found = {}
        for shard in shards:
            if f"{shard.name}.json" in there:
                record = self.read_json(f"{_DONE}/{shard.name}.json")
                if sizes.get(record["file"]) == record["bytes"]:
                    found[shard.number] = record
        return found
