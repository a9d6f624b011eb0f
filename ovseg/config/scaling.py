"""Learning rate and iterations of another batch size than the config file's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode

from ovseg.errors import UserError

#: what goes with the batch, and what against it, so that as many images are seen
_WITH = ("SOLVER.BASE_LR",)
_AGAINST = (
    "SOLVER.MAX_ITER",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.STEPS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
)


def scale_to_batch(
    opts: Sequence[object], batch: int, make: Callable[[Sequence[object]], CfgNode]
) -> tuple[list[object], str]:
    """Overrides that scale the solver from the config file's batch size to another.

    The learning rate is multiplied by the ratio of the batch sizes, and all that counts iterations
    is divided by it, rounded: the linear rule (Goyal et al. 2017, arXiv 1706.02677). A key that
    ``opts`` name keeps its value.

    Args:
        opts: overrides as KEY, VALUE, KEY, VALUE.
        batch: ``SOLVER.IMS_PER_BATCH`` with these.
        make: the config with such overrides.

    Returns:
        More overrides, and a line that says what was changed.

    Raises:
        UserError: ``opts`` do not name a batch size, or it is less than 1.
    """
    if "SOLVER.IMS_PER_BATCH" not in opts[::2]:
        raise UserError(
            "--scale-lr scales to another batch size; give SOLVER.IMS_PER_BATCH N at the end, too"
        )
    if batch < 1:
        raise UserError(f"config key SOLVER.IMS_PER_BATCH: {batch}; give 1 or more")
    place = 2 * list(opts[::2]).index("SOLVER.IMS_PER_BATCH")
    before = make([*opts[:place], *opts[place + 2 :]])
    ratio = batch / before.SOLVER.IMS_PER_BATCH
    scaled: list[object] = []
    told = []
    for key in (*_WITH, *_AGAINST):
        section, name = key.split(".")
        value = before[section][name]
        if key in opts[::2] or not value:
            continue
        if isinstance(value, tuple):
            new: Any = tuple(max(1, round(each / ratio)) for each in value)
        else:
            new = value * ratio if key in _WITH else max(1, round(value / ratio))
        scaled += [key, new]
        told.append(f"{key} {_shown(value)} -> {_shown(new)}")
    line = f"--scale-lr: {batch} images a batch in place of {before.SOLVER.IMS_PER_BATCH}: "
    return scaled, line + (", ".join(told) or "nothing to change")


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, tuple) else f"{value:g}"
