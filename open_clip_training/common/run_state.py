"""What every training run here has: a learning rate's course, seeds, files to use and to resume."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from open_clip_training.common.options import resume_path
from ovseg.errors import UserError
from ovseg.utils.checkpoint_files import load_content
from ovseg.utils.settings import check_settings
from ovseg.utils.write_checkpoint import write_checkpoint


def learning_rate(step: int, warmup: int, steps: int) -> float:
    """Factor on all learning rates: linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def base_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """The learning rates of an optimizer's groups before any step."""
    return [group["lr"] for group in optimizer.param_groups]


def start_step(optimizer: torch.optim.Optimizer, rates: Sequence[float], factor: float) -> None:
    """Forget the gradients and set the learning rates to ``factor`` times ``rates``."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = factor * rate
    optimizer.zero_grad(set_to_none=True)


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def half_precision(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's state, floating point in float16."""
    return {
        name: value.half() if value.is_floating_point() else value.clone()
        for name, value in model.state_dict().items()
    }


def write_clip(
    output: Path, state: Mapping[str, Tensor], model_cfg: Mapping[str, Any], step: int
) -> None:
    """Write a training checkpoint of open_clip's form, which says its architecture."""
    write_checkpoint(
        {"state_dict": dict(state), "model_cfg": dict(model_cfg), "step": step}, output
    )


def history_path(output: Path) -> Path:
    """Where the losses and accuracies of a run are written, as JSON."""
    return output.with_name(f"{output.stem}_history.json")


def write_resume(output: Path, state: Mapping[str, Any]) -> None:
    """Write the training state of a run beside ``output``."""
    write_checkpoint(state, resume_path(output))


def read_resume(
    output: Path, present: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, Any]:
    """The training state that a run of the same settings left beside ``output``.

    Args:
        output: what the run makes.
        present: its settings, and what it is made of.
        names: what users call a setting, where that is not the option of its name.

    Raises:
        UserError: nothing is there, it cannot be read, or it was made with other settings.
    """
    saved = _read_state(output)
    history = saved.get("history", saved)
    check_settings(
        {**history.get("settings", {}), **saved.get("made_of", {})},
        present,
        what=f"--resume: {resume_path(output)}",
        way_out="give the same, or --overwrite in place of --resume to start anew",
        names=names,
    )
    return saved


def _read_state(output: Path) -> dict[str, Any]:
    path = resume_path(output)
    if not path.is_file():
        raise UserError(f"--resume: {path} is not there; run without --resume to start")
    try:
        saved = load_content(path)
        if isinstance(saved, dict):
            return saved
    except Exception as error:  # a damaged file makes torch raise nearly anything
        raise UserError(
            f"--resume: {path} is damaged ({type(error).__name__}); give --overwrite in place of "
            "--resume to start anew"
        ) from error
    raise UserError(
        f"--resume: {path} is no training state; give --overwrite in place of --resume to start "
        "anew"
    )
