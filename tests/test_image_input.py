"""Images as arrays: none shares its memory with what the caller goes on writing to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from ovseg.image_input import batches, image_array


@pytest.mark.parametrize("frame", [np.zeros((4, 6, 3), np.uint8), torch.zeros(3, 4, 6).byte()])
@pytest.mark.parametrize("size", [1, 3])
def test_one_array_for_all_frames(frame: Any, size: int) -> None:
    def frames() -> Iterator[Any]:
        for number in range(6):
            frame[:] = number
            yield frame

    found = [array.max() for batch in batches(frames(), False, size, None) for array in batch]
    assert found == [0, 1, 2, 3, 4, 5]


def test_an_image_stays_when_its_source_changes() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    sources: list[Any] = [pixels, torch.from_numpy(pixels).permute(2, 0, 1)]
    kept = [image_array(source, bgr=False) for source in sources]
    pixels[:] = 7
    assert all((array == 0).all() for array in kept)
