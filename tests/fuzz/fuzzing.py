"""How many cases hypothesis makes up: a sample, or $OVSEG_FUZZ_CASES of each property."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ovseg.errors import UserError

CASES = int(os.environ.get("OVSEG_FUZZ_CASES", "25"))
#: the sample is the same in every run; $OVSEG_FUZZ_CASES are others each time
cases = settings(
    max_examples=CASES,
    deadline=None,
    derandomize="OVSEG_FUZZ_CASES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)

text = st.text(max_size=12)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), text, st.binary(max_size=4)
)
#: what JSON and yaml may hold
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """A file's bytes, cut off, with others in their place, or with more in between."""
    content = bytearray(sound)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        if kind == "flip" and content:
            content[place] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del content[place : place + draw(st.integers(1, 40))]
        elif kind == "insert":
            content[place:place] = draw(st.binary(max_size=8))
        else:
            content += content[place:]
        content = content[:200_000]
    return bytes(content)


def accepted(read: Callable[[], Any]) -> Any:
    """What a reader gives; None where it refuses in one line that says something."""
    try:
        return read()
    except UserError as error:
        message = str(error)
    assert len(message) > 10
    return None
