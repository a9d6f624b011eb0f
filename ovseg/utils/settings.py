"""May work that was begun go on? Its recorded settings against the present ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ovseg.errors import UserError
from ovseg.utils.io import read_json, write_json

#: the record in a folder that is filled in several runs
RECORD = "settings.json"
_MOST = 6  # differences in a message
_LONGEST = 120  # characters of a value in a message


def option_name(name: str) -> str:
    """``--batch-size`` of ``batch_size``."""
    return f"--{name.replace('_', '-')}"


def option_settings(options: argparse.Namespace, leave_out: Collection[str]) -> dict[str, Any]:
    """Options that a result depends on, as JSON holds them.

    Args:
        options: of a command line.
        leave_out: names of those that do not matter.
    """
    return {name: _as_json(value) for name, value in vars(options).items() if name not in leave_out}


def differing_settings(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """Names of the settings that differ, or that only one of the two has.

    Values are compared as JSON holds them: a tuple equals a list, a path its text.
    """
    names = dict.fromkeys([*present, *recorded])
    return [name for name in names if _as_json(recorded.get(name)) != _as_json(present.get(name))]


def check_settings(
    recorded: Mapping[str, Any],
    present: Mapping[str, Any],
    *,
    what: str,
    way_out: str,
    names: Mapping[str, str] | None = None,
) -> None:
    """Refuse to go on with work that was begun with other settings.

    Args:
        recorded: settings of the work that was begun.
        present: settings now.
        what: the option and value that name the work, for the message.
        way_out: what to do, for the message.
        names: what users call a setting, where that is not the option of its name.

    Raises:
        UserError: they differ; the message says in what.
    """
    names = names or {}
    differences = [
        f"{names.get(name, option_name(name))} {_short(recorded.get(name))}, "
        f"now {_short(present.get(name))}"
        for name in differing_settings(recorded, present)
    ]
    if len(differences) > _MOST:
        differences[_MOST:] = [f"and {len(differences) - _MOST} more"]
    if differences:
        raise UserError(
            f"{what} was begun with other settings ({'; '.join(differences)}): {way_out}"
        )


def check_folder_settings(
    folder: Path, present: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> None:
    """:func:`check_settings` for a folder ``--output``, if settings are recorded there.

    Raises:
        UserError: they differ, or the record is broken.
    """
    if (folder / RECORD).is_file():
        check_settings(
            read_json(folder / RECORD, dict),
            present,
            what=f"--output {str(folder)!r}",
            way_out="give another folder, or delete this one",
            names=names,
        )


def record_folder_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Record what :func:`check_folder_settings` compares with."""
    write_json(folder / RECORD, settings)


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
