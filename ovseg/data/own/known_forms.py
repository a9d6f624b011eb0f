"""Known forms of label maps that a description does not fit, and the key that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ovseg.data.label_maps import read_colours

from .colours import hex_colour

_NAMED = 6


def advice_for_values(values: Mapping[int, int], class_names: Sequence[str], ignored: int) -> str:
    """What to write for label maps whose values are not the places of the classes.

    Args:
        values: pixels of each value that occurs.
        class_names: in the order of ``classes``.
        ignored: the ignored value.

    Returns:
        "" where the values fit the classes.
    """
    found = sorted(values)
    count = len(class_names)
    outside = [value for value in found if value >= count and value != ignored]
    absent = [label for label in range(count) if label not in values]
    if found == [0, 255] and ignored == 255 and (absent or count == 1):
        codes = (255,) if count == 1 else (0, 255)
        names = class_names if count <= 2 else ("...", "...")
        return (
            "its label maps look like binary masks of 0 and 255, which are read by "
            f"{_values(codes, names)} in place of classes"
        )
    from_one = list(range(1, count + 1))
    if outside == [count] and set(found) <= {0, *from_one, ignored}:
        return (
            "if 0 means unlabelled and the classes count from 1, write "
            f"{_values(from_one, class_names)} and ignore_value: 0 in place of classes"
        )
    highest = found[-1] if found else 0
    if outside == [highest] and highest in {255, 65535} and not absent:
        return f"if {highest} means ignored, write ignore_value: {highest}"
    if outside:
        coded = [value for value in found if value != ignored]
        names = class_names if len(coded) == count else ["..."] * len(coded)
        return f"name the values that occur: {_values(coded, names)} in place of classes"
    return ""


def advice_for_colours(paths: Iterable[str], class_names: Sequence[str]) -> str:
    """What to write for colour masks that were given as label maps.

    Args:
        paths: of some of them.
        class_names: in the order of ``classes``; those of label maps with three equal channels.
    """
    counts: dict[int, int] = {}
    for path in paths:
        red, green, blue = np.moveaxis(read_colours(path).astype(np.int32), -1, 0)
        found, pixels = np.unique(red * 65536 + green * 256 + blue, return_counts=True)
        for colour, number in zip(found.tolist(), pixels.tolist(), strict=True):
            counts[colour] = counts.get(colour, 0) + number
    frequent = sorted(counts, key=lambda colour: -counts[colour])
    grey = {0x010101 * label: name for label, name in enumerate(class_names)}
    if set(frequent) <= grey.keys():
        frequent.sort()
    else:
        grey = {}
    named = ", ".join(f"'{hex_colour(colour)}': {grey.get(colour, '...')}"
                      for colour in frequent[:_NAMED])  # fmt: skip
    more = f" ({len(frequent) - _NAMED} more occur)" if len(frequent) > _NAMED else ""
    return (
        "its label maps are colour masks, which are read by naming the colour of each class, "
        f"colors: {{{named}}}{more} in place of classes"
    )


def _values(codes: Sequence[int], names: Sequence[str]) -> str:
    pairs = [f"{code}: {name}" for code, name in zip(codes, names, strict=True)]
    more = ["..."] if len(pairs) > _NAMED else []
    return f"values: {{{', '.join([*pairs[:_NAMED], *more])}}}"
