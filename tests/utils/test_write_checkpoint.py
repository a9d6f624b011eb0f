"""Writing where there is no room left."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from open_clip_training.common.run_state import write_clip
from ovseg.utils.io import atomic_path, write_json
from ovseg.utils.write_checkpoint import save_safetensors, write_checkpoint
from ovseg.video.files import VideoFile

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
        save_safetensors(WEIGHTS, {}, temporary)


def clip_file(path: Path) -> None:
    write_clip(path, WEIGHTS, {}, step=1)


def picture(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    with atomic_path(path) as temporary:
        Image.fromarray(noise).save(temporary, format="PNG")


def opencv_picture(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), noise):
            raise RuntimeError("it was not written")


def video(path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (8, 240, 320, 3), dtype=np.uint8)
    with atomic_path(path) as temporary, VideoFile(temporary, 10) as file:
        for frame in frames:
            file.write(frame)


def arrays(path: Path) -> None:
    with atomic_path(path) as temporary:
        np.savez(temporary, a=np.zeros(100_000))


def text(path: Path) -> None:
    write_json(path, ["a" * 1000] * 200)


@pytest.mark.parametrize(
    "write", [torch_file, safetensors_file, clip_file, picture, opencv_picture, video, arrays, text]
)
def test_the_error_names_the_file_and_nothing_is_left(
    write: Callable[[Path], None], tmp_path: Path, little_room: None
) -> None:
    suffix = {picture: ".png", opencv_picture: ".png", video: ".mp4"}.get(write, ".npz")
    path = tmp_path / f"model{suffix}"
    with pytest.raises(OSError, match="File too large") as raised:
        write(path)
    assert raised.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
