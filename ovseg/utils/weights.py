"""Reading state dicts that others trained, and writing them for detectron2."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg.errors import UserError
from ovseg.utils.io import atomic_path

logger = logging.getLogger(__name__)


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Read a PyTorch checkpoint, whatever it holds, without running code from it.

    Raises:
        UserError: the file is missing, or no such checkpoint.
    """
    if not Path(path).is_file():
        raise UserError(f"checkpoint {str(path)!r} does not exist; check the path")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken archive raises nearly anything
        # its kind alone: PyTorch's text advises to read such a file unsafely
        raise UserError(
            f"checkpoint {str(path)!r} cannot be read as PyTorch weights "
            f"({type(error).__name__}); give an intact file that holds weights only"
        ) from error


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch checkpoint without running code from it.

    They may be the file itself or its entry ``model`` or ``state_dict``; the prefix ``module.`` of
    parallel training is taken off.

    Raises:
        UserError: the file is missing, no PyTorch checkpoint, or holds no tensors by name.
    """
    content = read_checkpoint(path)
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = content if isinstance(content, Mapping) else {}
    weights = {
        str(name).removeprefix("module."): value
        for name, value in tensors.items()
        if isinstance(value, Tensor)
    }
    if not weights:
        raise UserError(f"checkpoint {str(path)!r} holds no weights; give a state dict")
    return weights


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


def convert_file(
    argv: Sequence[str] | None,
    description: str | None,
    source: str,
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    author: str,
) -> None:
    """The whole of a converter's command line: read a state dict, convert it, write it for
    detectron2, and log how many weights there are.

    Args:
        argv: input and output path; None: the process's arguments.
        description: the script's own.
        source: what the input is, for ``--help``.
        convert: from the file's weights to a detectron2 backbone's.
        author: whose weights they are; noted in the output.

    Raises:
        UserError: see :func:`read_state_dict` and :func:`write_detectron2_pickle`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", help=source)
    parser.add_argument("output", help="file to write (.pkl)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    weights = read_state_dict(args.input)
    converted = convert(weights)
    write_detectron2_pickle(args.output, converted, author)
    left_out = len(weights) - len(converted)
    logger.info("%s: %d weights, %d left out", args.output, len(converted), left_out)
