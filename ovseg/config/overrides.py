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


def dataset_names(opts: Sequence[str], keys: Iterable[str]) -> list[str]:
    """The data sets that KEY VALUE pairs give for ``keys``; the last value of a key counts."""
    values = dict(zip(opts[::2], opts[1::2], strict=False))
    return [name for key in keys for name in split_names(values.get(key, ""))]
