"""Writing where there is no room left."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ovseg.utils.io import atomic_path
from ovseg.utils.write_checkpoint import save_safetensors, write_checkpoint

WEIGHTS = {"weight": torch.zeros(100_000)}


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file may grow over 100 kB, which the system answers as it answers a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def torch_file(path: Path) -> None:
    write_checkpoint({"model": WEIGHTS}, path)


def safetensors_file(path: Path) -> None:
    with atomic_path(path) as temporary:
        save_safetensors(WEIGHTS, {}, temporary, path)


@pytest.mark.parametrize("write", [torch_file, safetensors_file])
def test_the_error_names_the_file_and_nothing_is_left(
    write: Callable[[Path], None], tmp_path: Path, little_room: None
) -> None:
    path = tmp_path / "model"
    with pytest.raises(OSError, match="File too large") as raised:
        write(path)
    assert raised.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
