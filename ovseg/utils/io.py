"""Folders to write to, and files written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ovseg.errors import UserError, is_full_disk

_ROOM = 1 << 20  # bytes that a disk which is not full can take


def machine_name() -> str:
    """Where process ids mean the same: containers may share the name of their machine."""
    try:
        return platform.node() + os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        return platform.node()


# .NAME-HOST-PID-TOKEN.SUFFIX
_TEMPORARY = re.compile(r"\..*-([0-9a-f]{4})-(\d+)-[0-9a-f]{8}(\.[^.]*)?", re.DOTALL)
_HOST = f"{zlib.crc32(machine_name().encode()) & 0xFFFF:04x}"
_IDLE = 3600.0  # seconds after which a file of another machine counts as abandoned
_swept: set[Path] = set()
_staying: set[Path] = set()


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user gives it: ``~`` is the home folder. ``~name`` without such a user stays."""
    return Path(os.path.expanduser(path))


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it only when the block succeeds.

    The temporary name keeps the suffix of ``path``, since image writers choose the format by it.
    Missing parent folders are made. When the block raises, ``path`` is left as it was. What a
    killed run has left of its own temporary files is removed, see :func:`remove_abandoned`.

    Raises:
        IsADirectoryError: ``path`` is a folder.
        OSError: the disk is full, in whatever words the block said so; names ``path``.
        UserError: the folder should have stayed, see :func:`folder_stays`.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    _check_folders_stayed(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.parent not in _swept:
        _swept.add(target.parent)
        remove_abandoned(target.parent)
    # not by tempfile, whose files are private: a result has the permissions of any other file
    mark = f"{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = target.with_name(f".{target.stem[:40]}-{mark}{target.suffix}")
    try:
        with naming_file(target, temporary):
            temporary.touch(exist_ok=False)
            yield temporary
            temporary.replace(target)
    finally:
        with suppress(OSError):  # a folder that can no longer be written has been told of
            temporary.unlink(missing_ok=True)


@contextmanager
def folder_stays(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Let :func:`atomic_path` not make ``folder`` anew while the block runs.

    A run whose folder vanishes, a network's for example, would go on in an empty one, without what
    it has written before.

    Args:
        folder: one that is not there yet is not looked after; nor is None.
    """
    added = {Path(folder).absolute()} if folder is not None and Path(folder).is_dir() else set()
    added -= _staying
    _staying.update(added)
    try:
        yield
    finally:
        _staying.difference_update(added)


def _check_folders_stayed(target: Path) -> None:
    for folder in _staying:
        if target.absolute().is_relative_to(folder):
            check_is_there(folder)


def check_is_there(folder: Path) -> None:
    """Check that a folder that was written to is still there.

    Raises:
        UserError: it is not.
    """
    if not folder.is_dir():
        raise UserError(
            f"the folder {str(folder)!r} has vanished during the run; when it is back, give the "
            "same command again (a training needs --resume)"
        )


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files in ``folder`` that no living process writes.

    Of this machine: those of processes that have ended. Of others, which may share the folder:
    those that nobody has written to for an hour.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match and _is_abandoned(entry, match[1], int(match[2])):
                with suppress(OSError):
                    os.unlink(entry)


def _is_abandoned(entry: os.DirEntry[str], host: str, process: int) -> bool:
    if host == _HOST and os.name == "posix" and process != os.getpid():
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except OverflowError:
            pass
        except PermissionError:
            return False
        else:
            return False
    return time.time() - entry.stat().st_mtime > _IDLE


@contextmanager
def naming_file(place: str | os.PathLike[str], written: Path | None = None) -> Iterator[None]:
    """Let errors of writing, above all that of a full disk, name the file or folder that is meant.

    Args:
        place: what they shall name, unless they name something already.
        written: the temporary file that the block writes to, which is no name for a user. Many
            libraries have words of their own for a full disk ("unexpected pos", "encoder error
            -2"): whether it is full is then found out by writing more to this file.

    Raises:
        OSError: the disk is full, or ``written`` cannot be written.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        told: Exception | None = error
        if not isinstance(error, OSError) or error.errno is None:
            told = _try_to_write(written)
        if not isinstance(told, OSError):
            raise
        unnamed = told.filename is None and is_full_disk(told)
        if not unnamed and (written is None or str(told.filename) != str(written)):
            raise
        # closing other files fails after the first has, and hides which that was
        first = _first_full_disk(told) if unnamed else None
        raise OSError(told.errno, told.strerror, first or str(place)) from error


def _first_full_disk(error: BaseException | None) -> str | None:
    """The file that the first of a chain of errors of a full disk names."""
    found = None
    while error is not None:
        if isinstance(error, OSError) and is_full_disk(error) and error.filename is not None:
            found = str(error.filename)
        error = error.__cause__ or error.__context__
    return found


def check_room(file: Path) -> None:
    """Find out whether a file could not be written because the disk is full.

    Raises:
        OSError: it is; names the file.
    """
    error = _try_to_write(file)
    if error is not None:
        raise OSError(error.errno, error.strerror, str(file)) from error


def _try_to_write(file: Path | None) -> OSError | None:
    """The error of a full disk, if there is no room to write more to a file."""
    if file is None:
        return None
    try:
        with file.open("ab") as stream:
            stream.write(bytes(_ROOM))
    except OSError as error:
        return error if is_full_disk(error) else None
    return None


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


def readable_name(path: str | os.PathLike[str]) -> str:
    """A path as text that UTF-8 can hold: other bytes, which file names may have, as U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8, whole or not at all.

    The bytes of a file name that are no UTF-8 are written as ``\\udce9``, which JSON reads back.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], content: Any, indent: int = 1) -> None:
    """Write ``content`` as JSON, see :func:`write_text`."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: it is none, or brackets stand in brackets too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its brackets are nested too deep") from error


def read_json(path: str | os.PathLike[str], kind: type, way_out: str = "delete it") -> Any:
    """Read a JSON file whose content is of the type ``kind``.

    Raises:
        UserError: it cannot be read, or holds something else; ends with ``way_out``.
    """
    try:
        content = parse_json(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); {way_out}") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} is broken; {way_out}")
    return content
