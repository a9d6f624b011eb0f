"""What every training run here has: a learning rate's course, seeds, a place to resume from."""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovseg.errors import UserError


def learning_rate(step: int, warmup: int, steps: int) -> float:
    """Factor on all learning rates: linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def resume_path(output: Path) -> Path:
    """Where the full training state of a run is kept."""
    return output.with_name(f"{output.stem}_resume.pt")


def read_resume(output: Path) -> dict[str, Any]:
    """The training state that a run left beside ``output``.

    Raises:
        UserError: nothing is there, or it cannot be read.
    """
    path = resume_path(output)
    if not path.is_file():
        raise UserError(f"--resume: {path} is not there; run without --resume to start")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(saved, dict):
            return saved
    except Exception as error:  # a damaged file makes torch raise nearly anything
        raise UserError(
            f"--resume: {path} is damaged ({type(error).__name__}); run without --resume to start"
        ) from error
    raise UserError(f"--resume: {path} is no training state; run without --resume to start")


def check_ranges(options: argparse.Namespace, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Check that options lie in least..most, or are None.

    Raises:
        UserError: one does not.
    """
    for name, (least, most) in ranges.items():
        value = getattr(options, name)
        if value is None or (math.isfinite(value) and least <= value <= most):
            continue
        wanted = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise UserError(f"--{name.replace('_', '-')} {value}: give {wanted}")


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
