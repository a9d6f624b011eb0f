"""Writing checkpoints of each form, whole or not at all."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg.errors import UserError
from ovseg.utils.io import atomic_path


def halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, float32 as float16."""
    return {
        name: value.half() if value.dtype == torch.float32 else value
        for name, value in weights.items()
    }


def write_checkpoint(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write what :func:`torch.save` takes.

    Raises:
        OSError: the file cannot be written; names it.
    """
    with atomic_path(path) as temporary:
        torch.save(dict(content), temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # so that a power cut cannot leave an empty file of its name


def save_safetensors(
    weights: Mapping[str, Tensor], metadata: Mapping[str, str], file: Path
) -> None:
    """Write weights to ``file``, a temporary one.

    Args:
        weights: tensors by name; those that share memory are written each.
        metadata: texts that go with them.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    own = {key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}
    mode = file.stat().st_mode if file.exists() else None
    try:
        save_file(own, file, {"format": "pt", **metadata})
        if mode is not None:  # safetensors makes a private file in its place
            file.chmod(mode)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def write_detectron2_pickle(
    path: str | os.PathLike[str], weights: Mapping[str, Tensor], author: str
) -> None:
    """Write weights as detectron2 reads them: a pickle of NumPy arrays.

    ``matching_heuristics`` lets detectron2 find the place of each weight by the end of its name, so
    that backbone weights fit a whole model.

    Raises:
        UserError: the suffix is not ``.pkl``, by which detectron2 knows the format, or the file
            cannot be written.
    """
    path = Path(path)
    if path.suffix != ".pkl":
        raise UserError(
            f"output {str(path)!r} must end in .pkl, by which detectron2 knows the format"
        )
    content = {
        "model": {name: value.detach().cpu().numpy() for name, value in weights.items()},
        "__author__": author,
        "matching_heuristics": True,
    }
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            pickle.dump(content, file, protocol=4)  # the same of every Python
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r} ({error.strerror}); give another") from error
