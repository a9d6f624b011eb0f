"""Broken and hostile images, and places for results that cannot be used."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from bad_cases import (
    Command,
    case,
    photo,
    png,
    png_chunk,
    segment,
    written,
)
from PIL import Image


@case
def image_missing(folder: Path) -> Command:
    return segment(folder, input=folder / "photo.jpg")


@case
def image_empty(folder: Path) -> Command:
    return segment(folder, input=written(folder / "photo.jpg", b""))


@case
def image_of_text(folder: Path) -> Command:
    return segment(folder, input=written(folder / "photo.jpg", "no image"))


@case
def image_cut_off(folder: Path) -> Command:
    path = folder / "photo.jpg"
    Image.effect_noise((300, 200), 90).save(path)
    return segment(folder, input=written(path, path.read_bytes()[:3000]))


@case
def image_is_folder(folder: Path) -> Command:
    (folder / "photos").mkdir()
    return segment(folder, input=folder / "photos")


@case
def image_pattern_without_match(folder: Path) -> Command:
    return segment(folder, input=folder / "*.jpg")


@case
def image_bomb(folder: Path) -> Command:
    data = png_chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9))
    return segment(folder, input=written(folder / "photo.png", png(60_000, 60_000, data)))


@case
def image_text_bomb(folder: Path) -> Command:
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9))
    data = png_chunk(b"IDAT", zlib.compress(bytes(4 * (1 + 3 * 4))))
    return segment(folder, input=written(folder / "photo.png", png(4, 4, text, data)))


@case
def image_without_pixels(folder: Path) -> Command:
    return segment(folder, input=written(folder / "photo.png", png(0, 4)))


@case
def image_svg(folder: Path) -> Command:
    return segment(folder, input=written(folder / "photo.svg", "<svg xmlns='x'><a/></svg>"))


@case
def image_named_pipe(folder: Path) -> Command:
    os.mkfifo(folder / "photo.jpg")
    return segment(folder, input=folder / "photo.jpg")


@case
def image_one_of_several(folder: Path) -> Command:
    photo(folder, "photos/a.png")
    written(folder / "photos" / "b.png", b"no image")
    return segment(folder, input=folder / "photos")


@case
def image_limit_is_no_number(folder: Path) -> Command:
    def run() -> None:
        from ovseg.cli import main

        os.environ["OVSEG_MAX_MEGAPIXELS"] = "many"
        try:
            main([str(part) for part in segment(folder)])  # type: ignore[union-attr]
        finally:
            del os.environ["OVSEG_MAX_MEGAPIXELS"]

    return run


@case
def output_is_a_file(folder: Path) -> Command:
    return segment(folder, "--output", written(folder / "taken", b""))


@case
def output_would_overwrite_the_image(folder: Path) -> Command:
    return segment(folder, "--output", photo(folder))


@case
def output_one_file_for_several(folder: Path) -> Command:
    photo(folder, "photos/a.png"), photo(folder, "photos/b.png")
    return segment(folder, "--output", folder / "x.png", input=folder / "photos")
