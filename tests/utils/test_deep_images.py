"""Images of more than 8 bits a channel: by what they declare, or by what they hold."""

from __future__ import annotations

import logging
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ovseg.errors import UserError
from ovseg.utils import deep_images
from ovseg.utils.deep_images import to_8_bit
from ovseg.utils.images import read_image, rgb_array

RNG = np.random.default_rng(0)
_KINDS = {"u": 1, "i": 2, "f": 3}


def test_opencv_speaks_again_after_threads_have_read(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(RNG.integers(0, 65535, (4, 4), dtype=np.uint16)).save(file)
    log: Any = getattr(cv2.utils, "logging", cv2)
    before = log.getLogLevel()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(deep_images.opencv_values, [file] * 200))
    assert log.getLogLevel() == before


def tiff(path: Path, values: np.ndarray, planes: bool = False, **tags: list[int] | bytes) -> Path:
    """Write an uncompressed TIFF by hand; further ``tags`` are called ``t<number>``."""
    height, width = values.shape[:2]
    channels = values.reshape(height, width, -1)
    count = channels.shape[2]
    parts = [channels[..., c].tobytes() for c in range(count)] if planes else [channels.tobytes()]
    fields: dict[int, list[int] | bytes] = {
        256: [width], 257: [height], 258: [values.itemsize * 8] * count, 259: [1],
        262: [2 if count >= 3 else 1], 277: [count], 278: [height],
        279: [len(part) for part in parts], 284: [2 if planes else 1],
        339: [_KINDS[values.dtype.kind]] * count,
        **({338: [2]} if count == 4 else {}),
        **{int(name[1:]): value for name, value in tags.items()},
    }  # fmt: skip
    first = 8
    starts = [first + sum(map(len, parts[:index])) for index in range(len(parts))]
    fields[273] = starts
    tail, entries = b"", b""
    at = first + sum(map(len, parts))
    for tag, value in sorted(fields.items()):
        raw = value if isinstance(value, bytes) else struct.pack(f"<{len(value)}I", *value)
        kind = 2 if isinstance(value, bytes) else 4
        if len(raw) > 4:
            place = struct.pack("<I", at + len(tail))
            tail += raw
        else:
            place = raw.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, len(value)) + place
    directory = struct.pack("<H", len(fields)) + entries + bytes(4)
    head = b"II*\0" + struct.pack("<I", at + len(tail))
    path.write_bytes(head + b"".join(parts) + tail + directory)
    return path


def with_bits(path: Path, bits: int) -> Path:
    """Declare significant bits in a PNG."""
    content = path.read_bytes()
    chunk = b"sBIT" + bytes([bits] * 3)
    chunk = struct.pack(">I", 3) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + chunk + content[33:])
    return path


def expected(values: np.ndarray, top: float) -> np.ndarray:
    grey = np.array([[round(255 * min(v, top) / top) for v in row] for row in values.tolist()])
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)


TWELVE = RNG.integers(0, 4001, (6, 5)).astype(np.uint16)
TWELVE[0, 0], TWELVE[0, 1] = 4000, 0


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(deep_images, "_told", set())
    caplog.set_level(logging.INFO)


def test_12_bits_in_16_by_their_own_largest_number_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiff(tmp_path / "a.tif", TWELVE)
    for _ in range(2):
        np.testing.assert_array_equal(read_image(path), expected(TWELVE, 4000))
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: more than 8 bits a channel. It declares no range, so that its largest number, "
        "4000, is shown as 255."
    ]
    Image.fromarray(TWELVE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected(TWELVE, 4000))
    assert len(caplog.records) == 2


def test_a_declared_range_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ome = b'<OME><Pixels SignificantBits="12"/></OME>\0'
    for name, tags in {
        "max": {"t281": [4095]},
        "signed": {"t341": [4095]},
        "ome": {"t270": ome},
    }.items():
        path = tiff(tmp_path / f"{name}.tif", TWELVE, **tags)
        np.testing.assert_array_equal(read_image(path), expected(TWELVE, 4095), err_msg=name)
    Image.fromarray(TWELVE).save(tmp_path / "a.png")
    path = with_bits(tmp_path / "a.png", 12)
    np.testing.assert_array_equal(read_image(path), expected(TWELVE, 4095))
    assert caplog.records == []
    # more than it declares
    path = tiff(tmp_path / "less.tif", TWELVE, t281=[1000])
    np.testing.assert_array_equal(read_image(path), expected(TWELVE, 4000))
    assert "It declares 1000, so that its largest number, 4000" in caplog.text


def test_a_pgm_declares_its_range_in_its_head(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 5 6 8191\n" + TWELVE.astype(">u2").tobytes())
    difference = read_image(tmp_path / "a.pgm").astype(int) - expected(TWELVE, 8191)
    assert abs(difference).max() <= 1  # Pillow has spread it over 16 bits


@pytest.mark.parametrize("ending", ["pgm", "ppm", "grey.jp2", "colour.jp2"])
def test_12_bits_in_16_of_other_formats(ending: str, tmp_path: Path) -> None:
    path, values = tmp_path / f"a.{ending}", TWELVE
    if ending in {"ppm", "colour.jp2"}:
        values = np.stack([TWELVE, TWELVE[::-1], TWELVE // 2], axis=-1)
    if ending.endswith("jp2"):
        values = values.repeat(16, axis=0).repeat(16, axis=1)  # it takes no smaller ones
        least_loss = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
        assert cv2.imwrite(str(path), values[..., ::-1] if values.ndim == 3 else values, least_loss)
    else:
        kind = b"P5" if ending == "pgm" else b"P6"
        path.write_bytes(kind + b" # made here\n5 6 65535\n" + values.astype(">u2").tobytes())
    read = read_image(path).astype(int)
    wanted = colours(values, 4000) if values.ndim == 3 else expected(values, 4000)
    # compression may be off by a few of 4000
    assert abs(read - wanted).max() <= (2 if ending.endswith("jp2") else 0)


def test_a_ppm_of_fewer_bits_declares_its_range(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.stack([TWELVE, TWELVE[::-1], TWELVE // 2], axis=-1)
    (tmp_path / "a.ppm").write_bytes(b"P6 5 6 8191\n" + values.astype(">u2").tobytes())
    difference = read_image(tmp_path / "a.ppm").astype(int) - colours(values, 8191)
    assert abs(difference).max() <= 1
    assert caplog.records == []


def test_grey_and_opacity_of_16_bits(tmp_path: Path) -> None:
    opacity = np.full_like(TWELVE, 65535)
    opacity[2] = 0
    rows = np.stack([TWELVE, opacity], axis=-1).astype(">u2")
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 5, 6, 16, 4, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in parts.items()
    ))  # fmt: skip
    wanted = expected(TWELVE, 4000)
    wanted[2] = 255
    np.testing.assert_array_equal(read_image(path), wanted)


def test_white_may_be_zero(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", TWELVE, t262=[0])
    np.testing.assert_array_equal(read_image(path), expected(4000 - TWELVE, 4000))


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (np.zeros((6, 5, 5), np.uint16), "5 channels of 16 bits"),
        (np.zeros((6, 5, 2), np.uint16), "2 channels of 16 bits"),
        (np.zeros((6, 5), np.float16), "1 channel of floating-point 16 bits"),
    ],
)
def test_what_nobody_reads_is_named(
    values: np.ndarray, what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tiff(tmp_path / "a.tif", values)
    with pytest.raises(UserError, match=f"it is a TIFF of {what}, in a form that is not read"):
        read_image(path)
    assert capfd.readouterr() == ("", "")  # OpenCV would say it in its own words too


@pytest.mark.parametrize("kind", [np.uint32, np.int32])
def test_integers_of_32_bits(tmp_path: Path, kind: type) -> None:
    values = RNG.integers(0, 70_001, (6, 5)).astype(kind)
    values[0, 0] = 70_000
    if kind is np.int32:
        values[1, 1] = -5
    path = tiff(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(read_image(path), expected(values.clip(0), 70_000))
    if kind is np.uint32:
        values[0, 0] = 2**32 - 1
        path = tiff(tmp_path / "b.tif", values)
        np.testing.assert_array_equal(read_image(path), expected(values, 2**32 - 1))
    if kind is np.uint32 and cv2.__version__ < "5":
        return  # OpenCV 4 reads no colours of unsigned 32 bits
    colour = np.repeat(values[..., None], 3, axis=-1)  # nothing that Pillow reads
    path = tiff(tmp_path / "c.tif", colour)
    np.testing.assert_array_equal(read_image(path), expected(values.clip(0), values.max()))


def colours(values: np.ndarray, top: float) -> np.ndarray:
    return np.rint(values.astype(np.float64) * 255 / top).astype(np.uint8)


def test_three_channels_of_16_bits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = RNG.integers(0, 65536, (6, 5, 3)).astype(np.uint16)
    full[0, 0] = 65535
    twelve = full // 16
    for name, values, top in (("full", full, 65535), ("twelve", twelve, 4095)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), values[..., ::-1])
        tiff(tmp_path / f"{name}.tif", values)
        cv2.imwrite(str(tmp_path / f"{name}_lzw.tiff"), values[..., ::-1])
        for file in (f"{name}.png", f"{name}.tif", f"{name}_lzw.tiff"):
            np.testing.assert_array_equal(
                read_image(tmp_path / file), colours(values, top), err_msg=file
            )
    assert len(caplog.records) == 3
    path = with_bits(tmp_path / "twelve.png", 13)
    np.testing.assert_array_equal(read_image(path), colours(twelve, 8191))
    path = tiff(tmp_path / "declared.tif", twelve, t281=[8191, 8191, 8191])
    np.testing.assert_array_equal(read_image(path), colours(twelve, 8191))


def test_opacity_of_16_bits_is_laid_over_white(tmp_path: Path) -> None:
    values = np.full((2, 2, 4), 65535, np.uint16)
    values[0, 0] = (65535, 0, 0, 65535)
    values[0, 1] = (0, 0, 0, 0)
    values[1, 0, :3] = 0
    opaque = np.array([[[255, 0, 0], [255, 255, 255]], [[0, 0, 0], [255, 255, 255]]])
    cv2.imwrite(str(tmp_path / "a.png"), values[..., [2, 1, 0, 3]])
    tiff(tmp_path / "a.tif", values)
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name), opaque, err_msg=name)
    # 12 bits of colour, 16 of opacity
    values[..., :3] //= 16
    tiff(tmp_path / "b.tif", values)
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), opaque)


def test_deep_images_are_turned_upright(tmp_path: Path) -> None:
    values = (np.arange(18).reshape(2, 3, 3) * 3855).astype(np.uint16)
    turned = np.rot90(colours(values, 65535), -1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values[..., 0]).save(tmp_path / "grey.png", exif=exif)
    grey = np.rot90(colours(values[..., 0], int(values[..., 0].max())), -1)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[..., 0], grey)
    np.testing.assert_array_equal(read_image(tiff(tmp_path / "a.tif", values, t274=[6])), turned)
    path = tiff(tmp_path / "g.tif", values[..., 0], t274=[6])
    np.testing.assert_array_equal(read_image(path)[..., 0], grey)
    cv2.imwrite(str(tmp_path / "a.png"), values[..., ::-1])
    content = (tmp_path / "a.png").read_bytes()
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), turned)


def test_floats(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    for factor, top in ((1, 1), (255, 255), (1000, 1000)):
        path = tiff(tmp_path / f"{factor}.tif", values * factor)
        np.testing.assert_array_equal(read_image(path), expected(values * factor, top))
    odd = np.array([[np.nan, -3, 1000, np.inf, 500]], np.float32)
    np.testing.assert_array_equal(to_8_bit(odd), [[0, 0, 255, 255, 128]])


def test_black_stays_black_and_bands_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not to_8_bit(np.zeros((3, 2), np.uint16)).any()
    values = RNG.integers(0, 65536, (40, 3, 3)).astype(np.uint16)
    values[0] = 65535
    for numbers in (1, 20, 10_000):
        monkeypatch.setattr(deep_images, "_BAND", numbers)
        np.testing.assert_array_equal(to_8_bit(values), colours(values, 65535))


def test_broken_ones_are_named(tmp_path: Path) -> None:
    noise = RNG.integers(0, 65536, (64, 64, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    tiff(tmp_path / "a.tif", noise)
    for planes in (noise, noise.astype(np.uint32)):
        path = tiff(tmp_path / "planes.tif", planes, planes=True)
        with pytest.raises(UserError, match=r"3 channels of \d\d bits lie in planes of their own"):
            read_image(path)
    for name in ("a.png", "a.tif"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:9000])
        with pytest.raises(UserError, match=rf"{name}' cannot be read as an image"):
            read_image(path)


def test_a_pillow_image_of_16_bits() -> None:
    np.testing.assert_array_equal(rgb_array(Image.fromarray(TWELVE)), expected(TWELVE, 4000))
