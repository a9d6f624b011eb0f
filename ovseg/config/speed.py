"""Presets of speed: a few config keys under one name. ``docs/speed.md`` says what each costs."""

from __future__ import annotations

import difflib

from ovseg.errors import UserError

_ADAPTER = "MODEL.CLIP_ADAPTER"
_EXACT: dict[str, object] = {
    f"{_ADAPTER}.REGION_ENCODER": "crops",
    f"{_ADAPTER}.CROPS": "all",
    f"{_ADAPTER}.CROPS_TOLERANCE": 1.0,
    f"{_ADAPTER}.CROPS_MIN_AREA": 0.0,
    f"{_ADAPTER}.CROPS_SECOND_ROUND": 0.0,
    f"{_ADAPTER}.CROPS_BORROW_IOU": 1.0,
}
#: config keys and their values by the name of a preset
SPEEDS: dict[str, dict[str, object]] = {
    "exact": _EXACT,
    "fast": {**_EXACT, f"{_ADAPTER}.CROPS": "visible", f"{_ADAPTER}.CROPS_BORROW_IOU": 0.9},
    "fastest": {
        **_EXACT,
        f"{_ADAPTER}.CROPS": "visible",
        f"{_ADAPTER}.CROPS_BORROW_IOU": 0.9,
        f"{_ADAPTER}.CROPS_MIN_AREA": 0.01,
    },
}


def speed_opts(speed: str | None) -> list[str]:
    """The KEY VALUE pairs of a preset; none without one.

    Raises:
        UserError: an unknown name.
    """
    if speed is None:
        return []
    if speed not in SPEEDS:
        close = difflib.get_close_matches(speed, SPEEDS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"speed {speed!r} is unknown; {hint}choose from {', '.join(SPEEDS)}")
    return [str(part) for pair in SPEEDS[speed].items() for part in pair]
