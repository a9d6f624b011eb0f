"""Numbers between 0 and 1 as lists and spans on a command line."""

from __future__ import annotations

import math

from ovseg.errors import UserError

#: of a list, and of a grid of two; each point of a grid has a confusion matrix
MAX_POINTS = 1000


def parse_values(text: str, option: str) -> tuple[float, ...]:
    """Read the values of one side of the grid, in ascending order.

    Args:
        text: ``0.35,0.4`` or ``0.35 0.4``, or ``first:last:step`` with the last included.
        option: what the user calls it.

    Raises:
        UserError: no value, too many, something else than a number, a span that
            ends before it begins or has no step, or a number outside 0..1.
    """
    values: list[float] = []
    for part in text.replace(",", " ").split():
        first, last, step = _span(part, option)
        for value in (first, last):
            if not 0 <= value <= 1:
                raise UserError(f"{option} {value!r} is outside 0..1; leave it out")
        steps = (last - first) / step
        if len(values) + steps >= MAX_POINTS:
            raise UserError(f"{option} {part!r} makes over {MAX_POINTS} values; give a larger step")
        # rounded, so that 0.6 + 2 * 0.05 is the 0.7 that a user would write
        values += [
            min(last, round(first + i * step, 10)) for i in range(math.floor(steps + 1e-6) + 1)
        ]
    if not values:
        raise UserError(f"{option} is empty; give at least one value, for example 0.7")
    return tuple(sorted(set(values)))


def _span(part: str, option: str) -> tuple[float, float, float]:
    try:
        numbers = [float(number) for number in part.split(":")]
        first, last, step = numbers if len(numbers) > 1 else (*numbers, *numbers, 1.0)
    except ValueError:
        numbers = [math.nan]
    if not all(math.isfinite(number) for number in numbers):
        raise UserError(f"{option} {part!r} is no number; give 0.6,0.7 or 0.6:0.8:0.05")
    if first > last:
        raise UserError(
            f"{option} {part!r} ends before it begins; give the smaller number first, as in "
            "0.6:0.8:0.05"
        )
    if step <= 0:
        raise UserError(f"{option} {part!r} has a step of {step:g}; give one above 0")
    return first, last, step
