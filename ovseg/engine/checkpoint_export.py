"""A training checkpoint made fit to give away: weights alone."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ovseg.config import setup_cfg
from ovseg.errors import UserError
from ovseg.pretrained import config_for, save_pretrained
from ovseg.released import WEIGHTS_FILE
from ovseg.utils.checkpoint_files import read_checkpoint
from ovseg.utils.write_checkpoint import halved, write_checkpoint


def _weights_of(source: Path, half: bool) -> dict[str, Tensor]:
    weights = read_checkpoint(source).weights
    if not any(name.startswith(("sem_seg_head.", "backbone.")) for name in weights):
        raise UserError(f"{str(source)!r} is not a checkpoint of train_net.py")
    if half:
        return halved(weights)
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in weights.items()
    }


def export(source: Path, target: Path, *, half: bool = True) -> int:
    """Write the weights of ``source`` to ``target``, as ``{"model": state_dict}``.

    Args:
        source: the checkpoint.
        target: file to write.
        half: write float16, else float32.

    Returns:
        The size of ``target`` in bytes.

    Raises:
        UserError: ``source`` is missing or is no checkpoint.
    """
    write_checkpoint({"model": _weights_of(source, half)}, target)
    return target.stat().st_size


def export_folder(source: Path, folder: Path, config: Path | None, *, half: bool = True) -> int:
    """Write a checkpoint as ``config.yaml`` and ``model.safetensors``.

    Args:
        source: the checkpoint.
        folder: made if it is not there.
        config: of the checkpoint; None: the ``config.yaml`` that training left beside it, or that
            of a released file.
        half: write float16, else float32.

    Returns:
        The size of the weights in bytes.

    Raises:
        UserError: ``source`` or its config is missing or cannot be used.
    """
    weights = _weights_of(source, half)
    cfg = setup_cfg(config or config_for(source, "evaluation"))
    save_pretrained(cfg, weights, folder)
    return (folder / WEIGHTS_FILE).stat().st_size
