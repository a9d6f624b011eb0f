"""Reading tables of captions and pairs."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ovseg.errors import UserError


def read_table(
    path: Path, columns: Sequence[str], what: str, or_else: str = ""
) -> list[dict[str, str]]:
    """The rows of a CSV file: UTF-8, a header, columns separated by commas, or by tabs where the
    header has a tab.

    Args:
        path: of a file that is there.
        columns: that it must have; it may have others.
        what: names the file in messages, as its option and value.
        or_else: other columns that would do as well, for the message.

    Returns:
        A dict for each row; a cell that is not there is empty.

    Raises:
        UserError: it cannot be read or lacks a column.
    """
    with _rows(path, what) as reader:
        found = reader.fieldnames or []
        lacking = [column for column in columns if column not in found]
        if lacking:
            raise UserError(
                f"{what} lacks the column {lacking[0]!r}; it has "
                f"{', '.join(map(repr, found)) or 'none'} (columns are separated by commas or "
                f"tabs), and needs {' and '.join(columns)}{or_else and f', or {or_else}'}"
            )
        return list(reader)


def path_below(folder: Path, name: str, what: str) -> Path:
    """A path that a table names, which has to lie in a folder; links are not looked at.

    Args:
        folder: which relative paths are relative to.
        name: as the table has it.
        what: names the file in messages.

    Raises:
        UserError: it leads out of the folder.
    """
    path = Path(os.path.normpath(folder / name))
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        raise UserError(
            f"{what} names {name!r}, which lies outside of {str(folder)!r}; give --data-root, a "
            "folder that holds all that it names"
        )
    return path


def read_columns(path: Path, what: str) -> list[str]:
    """The columns of a table; arguments and errors as of :func:`read_table`."""
    with _rows(path, what) as reader:
        return list(reader.fieldnames or [])


@contextmanager
def _rows(path: Path, what: str) -> Iterator[csv.DictReader[str]]:
    try:
        # with the mark that spreadsheets put before UTF-8, or without
        with path.open(newline="", encoding="utf-8-sig") as file:
            delimiter = "\t" if "\t" in file.readline() else ","
            file.seek(0)
            yield csv.DictReader(file, restval="", delimiter=delimiter)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{what} cannot be read as CSV ({error}); write it as UTF-8") from error
