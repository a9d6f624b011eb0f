"""What a pretraining run depends on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PretrainingSettings:
    """Everything a run depends on besides its data."""

    steps: int = 1100
    batch: int = 256
    warmup: int = 60
    lr: float = 1.5e-3
    muon_lr: float = 5e-3
    weight_decay: float = 0.1
    patch_dropout: float = 0.5
    full_steps: float = 0.08
    unknown_tokens: float = 0.01
    seed: int = 0
