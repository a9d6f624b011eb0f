"""Checks of options that all command lines here need."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping

from ovseg.errors import UserError
from ovseg.utils.settings import option_name

SEEDS = (0, 2**32 - 1)  # what every generator takes


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
        raise UserError(f"{option_name(name)} {value}: give {wanted}")
