"""What a command line says of a config that can be looked at without reading the config."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ovseg.errors import UserError

#: keys that hold several names; on the command line one bare name or a comma-separated list will do
NAME_LISTS = frozenset({"DATASETS.TRAIN", "DATASETS.TEST"})


def find_config(path: str | os.PathLike[str]) -> Path:
    """The config file that a command names.

    Raises:
        UserError: none is named, or it is not there.
    """
    if not str(path):
        raise UserError("no config; give --config-file, for example configs/ovseg_tiny.yaml")
    if not Path(path).is_file():
        raise UserError(
            f"--config-file {str(path)!r}: no such file; "
            "give a yaml such as configs/ovseg_tiny.yaml"
        )
    return Path(path)


def split_names(text: str) -> tuple[str, ...]:
    """The names in a list that is written ``one``, ``one,two`` or ``("one", "two")``."""
    return tuple(name for name in re.split(r"[\s,()\[\]'\"]+", text) if name)


def split_files(text: str) -> tuple[str, ...]:
    """The files in a list that is written ``one``, ``one,two`` or ``("one", "two")``."""
    parts = (part.strip().strip("'\"") for part in text.strip("()[] ").split(","))
    return tuple(part for part in parts if part)


def missing_weights(path: str) -> UserError:
    """The error of ``MODEL.WEIGHTS`` that are not there."""
    return UserError(
        f"MODEL.WEIGHTS {path!r}: there is no such file; give the path of a checkpoint "
        "(GETTING_STARTED.md says where they are)"
    )


def check_files(opts: Sequence[str], datasets: Iterable[str] = (), weights: bool = True) -> None:
    """Find files that are not there, before anything is imported to read them.

    Args:
        opts: KEY VALUE pairs.
        datasets: further files that describe data sets.
        weights: whether ``MODEL.WEIGHTS`` will be read.

    Raises:
        UserError: names the first.
    """
    values = dict(zip(opts[::2], opts[1::2], strict=False))
    for file in (*datasets, *split_files(values.get("DATASETS.CUSTOM", ""))):
        if not Path(file).expanduser().exists():
            raise UserError(
                f"data set file {file!r} cannot be read (No such file or directory); check the path"
            )
    path = values.get("MODEL.WEIGHTS", "").strip("'\"")
    if weights and path and "://" not in path and not os.path.exists(path):
        raise missing_weights(path)


def dataset_names(opts: Sequence[str], keys: Iterable[str]) -> list[str]:
    """The data sets that KEY VALUE pairs give for ``keys``; the last value of a key counts."""
    values = dict(zip(opts[::2], opts[1::2], strict=False))
    return [name for key in keys for name in split_names(values.get(key, ""))]
