"""What every training run here has: a learning rate's course, seeds, a place to resume from."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import torch


def learning_rate(step: int, warmup: int, steps: int) -> float:
    """Factor on all learning rates: linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def resume_path(output: Path) -> Path:
    """Where the full training state of a run is kept."""
    return output.with_name(f"{output.stem}_resume.pt")


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
