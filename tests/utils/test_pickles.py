"""Which pickles are read."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovseg.utils.pickles import ArrayUnpickler


def load(content: bytes) -> Any:
    return ArrayUnpickler(io.BytesIO(content)).load()


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_of_every_protocol(protocol: int) -> None:
    square = np.arange(12, dtype=np.float32).reshape(3, 4)
    arrays = {"plain": square, "turned": square.T, "some": square[:, ::2], "one": np.float64(0.5)}
    read = load(pickle.dumps(OrderedDict(arrays), protocol))
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
def test_arrays_of_protocol_5_that_another_numpy_wrote() -> None:
    # by hand: _frombuffer(bytes, "<u2", (2,), "C")
    for module in (b"numpy.core.numeric", b"numpy._core.numeric"):
        content = b"".join(
            [
                b"\x80\x05c" + module + b"\n_frombuffer\n",
                b"(C\x04\x01\x00\x00\x01X\x03\x00\x00\x00<u2K\x02\x85X\x01\x00\x00\x00CtR.",
            ]
        )
        assert load(content).tolist() == [1, 256]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_code_is_refused(protocol: int, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "evil"),)

    with pytest.raises(pickle.UnpicklingError, match="mkdir is not allowed"):
        load(pickle.dumps([Evil()], protocol))
    assert not (tmp_path / "evil").exists()
