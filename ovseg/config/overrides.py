"""What a command line says of a config, as far as it is the same for every way to read one."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ovseg.errors import UserError
from ovseg.released import WEIGHTS_FILE

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


def missing_weights(path: str) -> UserError:
    """The error of ``MODEL.WEIGHTS`` that are not there, or not given."""
    if not path:
        return UserError(
            "config key MODEL.WEIGHTS: empty; give the checkpoint at the end of the command, "
            "MODEL.WEIGHTS checkpoint.pth"
        )
    if os.path.isdir(path):
        return UserError(
            f"MODEL.WEIGHTS {path!r}: the folder holds no {WEIGHTS_FILE}; give the file in it"
        )
    return UserError(
        f"MODEL.WEIGHTS {path!r}: there is no such file; give the path of a checkpoint "
        "(GETTING_STARTED.md says where they are)"
    )
