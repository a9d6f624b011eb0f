"""Pictures of every kind become plain RGB; inputs of every kind become a list of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg.errors import UserError
from ovseg.utils.images import find_images, read_image

RGB = np.array([[[200, 10, 60], [0, 0, 0]], [[255, 255, 255], [1, 2, 3]], [[9, 9, 9], [7, 8, 9]]])
RGB = RGB.astype(np.uint8)  # three rows, two columns


def test_plain_and_orientation(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    image.save(tmp_path / "plain.png")
    np.testing.assert_array_equal(read_image(tmp_path / "plain.png"), RGB)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned right
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(RGB, -1))


def test_grey_of_all_depths(tmp_path: Path) -> None:
    grey = np.array([[0, 100, 255]], np.uint8)
    expected = np.repeat(grey[..., None], 3, axis=-1)
    files = {
        "8.png": grey,
        "16.png": grey.astype(np.uint16) * 257,
        "16.tif": grey.astype(np.uint16) * 257,
        "unit.tif": grey.astype(np.float32) / 255,
        "float.tif": grey.astype(np.float32),
    }
    for name, values in files.items():
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name), expected, err_msg=name)
    Image.fromarray(grey > 50).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_image(tmp_path / "1.png")[0, :, 0], [0, 255, 255])


def test_transparency_is_white_and_cmyk_is_converted(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[0, 0, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    expected = RGB.copy()
    expected[0, 0] = 255
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
    palette = Image.fromarray(RGB[:, :, 0]).convert("P")
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert (read_image(tmp_path / "p.png")[0, 0] == 255).all()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    red = read_image(tmp_path / "c.jpg")
    assert red.shape == (8, 8, 3)
    assert (abs(red[0, 0].astype(int) - [255, 0, 0]) < 6).all()


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    whole = tmp_path / "whole.png"
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:2000])
    for name in ("empty.png", "text.jpg", "half.png", "missing.png", "."):
        with pytest.raises(UserError) as error:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.PNG", "a.jpg", "c[1].png", "notes.txt", ".hidden.png", "sub/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(patterns: list[str]) -> list[str]:
    found, errors = find_images(patterns)
    assert errors == []
    return [path.name for path in found]


def test_files_folders_and_patterns(folder: Path) -> None:
    assert names([str(folder)]) == ["a.jpg", "b.PNG", "c[1].png"]
    assert names([f"{folder}/*.txt", f"{folder}/a.jpg"]) == ["notes.txt", "a.jpg"]
    assert names([f"{folder}/**/*.png"]) == ["c[1].png", "d.png"]
    assert names([f"{folder}/c[1].png"]) == ["c[1].png"]  # no pattern: there is such a file
    assert names([f"{folder}/a.jpg", str(folder), f"{folder}/sub/../a.jpg"])[:2] == [
        "a.jpg",
        "b.PNG",
    ]


def test_earlier_results_are_no_inputs(folder: Path) -> None:
    for name in ("a_overlay.jpg", "a_labels.png", "a.json", "z_labels.png"):
        (folder / name).touch()
    assert names([str(folder)]) == ["a.jpg", "b.PNG", "c[1].png", "z_labels.png"]


def test_what_is_not_found_is_told(folder: Path) -> None:
    (folder / "empty").mkdir()
    found, errors = find_images([f"{folder}/no*.png", f"{folder}/a.jpg", f"{folder}/empty"])
    assert [path.name for path in found] == ["a.jpg"]
    assert len(errors) == 2
    assert "no*.png" in errors[0]
    assert "holds no pictures" in errors[1]
    with pytest.raises(UserError, match="no input"):
        find_images([])
