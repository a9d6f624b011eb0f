"""Trainings that have gone astray: losses and weights that are not finite, in one line each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from ovseg.errors import UserError


def loss_error(
    losses: Mapping[str, float], step: int, rate: float, way_out: str, unit: str = "iteration"
) -> UserError:
    """The error of losses of which one is not finite.

    Args:
        losses: by name, of one step.
        step: its number, as ``unit`` counts.
        rate: the learning rate of that step.
        way_out: what to try.
        unit: what a step is called.
    """
    spoilt = {name: value for name, value in losses.items() if not math.isfinite(value)}
    # of many, as every decoder layer has its own, the first says enough
    name, value = next(iter(spoilt.items()), ("loss of another process", math.nan))
    more = f" (and {len(spoilt) - 1} more)" if len(spoilt) > 1 else ""
    return UserError(
        f"the {name} of {unit} {step} is {value}{more}, at learning rate {rate:.3g}: {way_out}"
    )


def check_weights_finite(weights: Iterable[tuple[str, Tensor]], file: Path, way_out: str) -> None:
    """Keep spoilt weights out of a file.

    Args:
        weights: names and values.
        file: that they were to be written to.
        way_out: what to try.

    Raises:
        UserError: one is not finite.
    """
    for name, value in weights:
        if not value.isfinite().all():
            raise UserError(f"training has spoilt {name}, so {file} is not written: {way_out}")
