"""Videos and uploads that cannot be used."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from bad_cases import (
    Command,
    case,
    png,
    png_chunk,
    written,
)
from PIL import Image

from ovseg.errors import cli_errors
from ovseg.video.files import VideoFile


def _video(folder: Path, path: Any, *more: Any) -> Command:
    return ["video", "--class-names", "grass", "water", "--input", path, "--output",
            folder / "out" / "a.avi", *more]  # fmt: skip


@case
def video_missing(folder: Path) -> Command:
    return _video(folder, folder / "clip.mp4")


@case
def video_of_text(folder: Path) -> Command:
    return _video(folder, written(folder / "clip.mp4", "no video"))


def _clip(folder: Path) -> Path:
    """A sound video of three frames."""
    with VideoFile(folder / "clip.avi", 10) as video:
        for _ in range(3):
            video.write(np.zeros((32, 32, 3), np.uint8))
    return folder / "clip.avi"


@case
def video_without_frames(folder: Path) -> Command:
    path = _clip(folder)
    return _video(folder, written(path, path.read_bytes()[:300]))


@case
def video_camera_missing(folder: Path) -> Command:
    return _video(folder, "93")


@case
def video_of_another_form(folder: Path) -> Command:
    return _video(folder, _clip(folder), "--output", folder / "a.webm")


def _upload(folder: Path, content: bytes, text: str = "grass\nwater", weight: Any = 0.5) -> Command:
    from ovseg.predictor import Predictor
    from ovseg.web.handlers import Handlers
    from ovseg.web.models import Models
    from ovseg.web.tasks import Tasks

    path = written(folder / "upload-0001", content)
    models = Models({"tiny": lambda: Predictor.from_pretrained("tiny", device="cpu")})
    handlers = Handlers(Tasks(models), folder / "out")
    picture = {"path": str(path), "orig_name": "holiday.jpg"}

    def run() -> None:
        with cli_errors():
            handlers.segment(picture, text, "tiny", weight, 0.5, 0.0, 0.5, "areas")

    return run


def _sound() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@case
def upload_no_image(folder: Path) -> Command:
    return _upload(folder, b"no image")


@case
def upload_bomb(folder: Path) -> Command:
    data = png_chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9))
    return _upload(folder, png(60_000, 60_000, data))


@case
def upload_without_words(folder: Path) -> Command:
    return _upload(folder, _sound(), " \n")


@case
def upload_with_too_many_words(folder: Path) -> Command:
    return _upload(folder, _sound(), "\n".join(f"word {number}" for number in range(2000)))


@case
def upload_with_a_weight_of_text(folder: Path) -> Command:
    return _upload(folder, _sound(), weight="much")


@case
def upload_with_a_weight_that_is_no_number(folder: Path) -> Command:
    return _upload(folder, _sound(), weight=float("nan"))
