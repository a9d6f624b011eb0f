"""Images of every kind become plain RGB."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg.errors import UserError
from ovseg.utils import images
from ovseg.utils.images import image_size, open_image, read_image

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
    (tmp_path / "text.jpg").write_text("no image")
    whole = tmp_path / "whole.png"
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:2000])
    for name in ("empty.png", "text.jpg", "half.png", "missing.png", "."):
        with pytest.raises(UserError) as error:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


def test_every_orientation_and_nothing_is_copied_without_need(tmp_path: Path) -> None:
    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB, 1),
    }
    for orientation, expected in upright.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("png", "tif"):
            path = tmp_path / f"{orientation}.{kind}"
            Image.fromarray(RGB).save(path, exif=exif)
            np.testing.assert_array_equal(read_image(path), expected, err_msg=path.name)
            assert image_size(path) == expected.shape[:2], path.name
        grey = tmp_path / f"grey_{orientation}.tif"
        Image.fromarray(RGB[..., 0]).save(grey, exif=exif)
        np.testing.assert_array_equal(read_image(grey)[..., 0], expected[..., 0], str(grey))


def test_bands_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    for pixels in (1, 30, 7 * 50):  # less than a row, several rows, all
        monkeypatch.setattr(images, "_BAND", pixels)
        np.testing.assert_array_equal(read_image(tmp_path / "noise.png"), noise)


def test_the_limit_of_megapixels_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (20_000, 10_000)).save(path)  # a file of 25 kB
    with pytest.raises(UserError) as error:
        read_image(path)
    assert str(error.value) == (
        f"image {str(path)!r} has 200.0 megapixels (20000 x 10000), more than the limit of 179; "
        "set the config key INPUT.MAX_MEGAPIXELS 201 (without a config the environment variable "
        "OVSEG_MAX_MEGAPIXELS), or give a smaller one"
    )
    monkeypatch.setenv("OVSEG_MAX_MEGAPIXELS", "201")
    before = Image.MAX_IMAGE_PIXELS
    with open_image(path) as file:
        assert file.size == (20_000, 10_000)
    assert before == Image.MAX_IMAGE_PIXELS
    with open_image(path) as file:
        assert file.getpixel((5, 5)) == 0
    assert [str(warning.message) for warning in recwarn] == []  # Pillow's, of half its limit
    monkeypatch.setenv("OVSEG_MAX_MEGAPIXELS", "0.00001")
    Image.fromarray(RGB).save(tmp_path / "six.png")
    read_image(tmp_path / "six.png")
    monkeypatch.setenv("OVSEG_MAX_MEGAPIXELS", "0.000005")
    with pytest.raises(UserError, match=r"0\.0 megapixels"):
        read_image(tmp_path / "six.png")
    for text in ("many", "-1", "nan"):
        monkeypatch.setenv("OVSEG_MAX_MEGAPIXELS", text)
        with pytest.raises(UserError, match=rf"OVSEG_MAX_MEGAPIXELS '{text}': give a number"):
            read_image(path)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    for name, content, reason in (
        ("empty.jpg", b"", "the file is empty"),
        ("page.jpg", b"<html>", "it is no image of a known kind"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        for read in (read_image, image_size):
            with pytest.raises(UserError) as error:
                read(path)
            said = f"input {str(path)!r} cannot be read as an image ({reason})"
            assert str(error.value).startswith(said)


def test_avif_and_heic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = np.repeat(np.linspace(0, 255, 64)[None, :, None], 32, axis=0).astype(np.uint8)
    smooth = np.repeat(smooth, 3, axis=2)
    Image.fromarray(smooth).save(tmp_path / "a.avif", quality=95)
    pytest.importorskip("pillow_heif").register_heif_opener()
    Image.fromarray(smooth).save(tmp_path / "a.heic", quality=95)
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.heic").read_bytes())  # by a messenger
    for name in ("a.avif", "a.heic", "a.jpg"):
        difference = abs(read_image(tmp_path / name).astype(int) - smooth)
        assert difference.max() < 12, name
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"a.heic' is a HEIC image.*pip install pillow-heif"):
        read_image(tmp_path / "a.heic")
