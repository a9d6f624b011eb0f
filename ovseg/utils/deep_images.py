"""Images of more than 8 bits a channel, as 8 bits: by the range that they declare or use.

A camera's 12 bits in a file of 16, or a measurement of 32, would be black if the file's own depth
were taken for its range.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

logger = logging.getLogger(__name__)

# tags of TIFF
_BITS, _MEANING, _CHANNELS, _PLANES = 258, 262, 277, 284
_WHITE_IS_ZERO = 0
_DESCRIPTION, _MAX_SAMPLE, _SAMPLE_FORMAT, _SMAX_SAMPLE = 270, 281, 339, 341
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_BITS_OF_OME = re.compile(r"\bSignificantBits=\"(\d+)\"")  # OME-TIFF's description is XML
_BAND = 1 << 22  # numbers that are worked on at once
_SILENT = 0  # OpenCV's LOG_LEVEL_SILENT
_told: set[str] = set()


def is_deep(image: Image.Image, path: Path | None = None) -> bool:
    """Whether the file of an image that is not loaded yet has more than 8 bits a channel.

    Of several channels in a PPM or JPEG 2000 only with all 16 bits: others Pillow scales rightly.
    """
    if image.mode.startswith(("I", "F")):
        return True
    if image.format in _SPREAD and path is not None:
        return _SPREAD[image.format](path) == 65535
    return any(";16" in str(tile[-1]) for tile in getattr(image, "tile", None) or [])


def deep_values(image: Image.Image, path: Path | None) -> np.ndarray:
    """The numbers of a deep image: (H, W), or (H, W, 3 or 4) RGB, of the file's own type."""
    tags = getattr(image, "tag_v2", {})
    image.load()  # finds out whether it is whole
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if image.mode == "I" and tags and _first(tags.get(_SAMPLE_FORMAT, _UNSIGNED)) != _SIGNED:
            values = values.view(np.uint32)
        if tags.get(_MEANING) == _WHITE_IS_ZERO:
            values = values.max(initial=0) - values
        return values
    by_opencv = opencv_values(path) if path is not None else None
    # of what does not come from a file, or not by OpenCV, Pillow has the upper 8 bits
    return np.asarray(image.convert("RGBA")) if by_opencv is None else by_opencv


# the level is the whole process's, and so changed by one thread at a time
_log_level = threading.Lock()


def opencv_values(path: Path) -> np.ndarray | None:
    """What OpenCV reads in a file: (H, W), or (H, W, 3 or 4) RGB; None where it cannot.

    A TIFF is turned upright, a PNG is not.
    """
    import cv2

    log = getattr(cv2.utils, "logging", cv2)  # OpenCV 5's place, and OpenCV 4's
    content = np.fromfile(path, np.uint8)
    with _log_level:
        level = log.setLogLevel(_SILENT)  # what is wrong is said by our errors
        try:
            values = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
        except cv2.error:
            return None
        finally:
            log.setLogLevel(level)
    if values is None:
        return None
    if values.ndim == 2:
        return np.asarray(values)
    if values.shape[2] == 2:  # grey and opacity
        return np.asarray(values)[:, :, [0, 0, 0, 1]]
    if values.shape[2] not in {3, 4}:
        return None
    order = [2, 1, 0, 3][: values.shape[2]]
    return np.asarray(values)[:, :, order]


def check_planes(tags: Mapping[int, Any]) -> None:
    """Refuse what neither Pillow nor OpenCV reads rightly, though both read it.

    Raises:
        ValueError: a TIFF of several deep channels holds them one after the other.
    """
    bits = tags.get(_BITS, ())
    planes = _first(tags.get(_PLANES, 1)) == 2
    if planes and isinstance(bits, tuple) and len(bits) > 1 and max(bits) > 8:
        raise ValueError(
            f"its {len(bits)} channels of {max(bits)} bits lie in planes of their own; write it "
            "with the channels of a pixel together"
        )


def describe_tiff(tags: Mapping[int, Any]) -> str:
    """What a TIFF holds that can be read by neither."""
    bits = max(bits if isinstance(bits := tags.get(_BITS, 1), tuple) else (bits,))
    kind = {_SIGNED: "signed ", _FLOAT: "floating-point "}.get(
        _first(tags.get(_SAMPLE_FORMAT, _UNSIGNED)), ""
    )
    channels = _first(tags.get(_CHANNELS, 1))
    return (
        f"it is a TIFF of {channels} channel{'s' * (channels != 1)} of {kind}{bits} bits, in a "
        "form that is not read; write 1 or 3 channels of 8 or 16 bits"
    )


def tiff_tags(path: Path) -> Mapping[int, Any]:
    """The tags of a TIFF that Pillow cannot read otherwise; empty for other files."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if len(head) == 8 and head[2] == 43:  # a BigTIFF's is longer
                head += file.read(8)
            tags = TiffImagePlugin.ImageFileDirectory_v2(head)
            file.seek(tags.next)
            tags.load(file)
            return dict(tags)
    except Exception:  # anything may be in a broken file, or in one of another kind
        return {}


def declared_top(image: Image.Image, path: Path | None) -> int | None:
    """The largest number that an image may hold by its own word; None: it does not say."""
    if image.format in _SPREAD and path is not None:
        # what is declared to use all bits need not: so it is with 16 bits of any format
        return None if _SPREAD[image.format](path) == 65535 else 65535
    if image.format == "PNG" and path is not None:
        bits = _png_bits(path)
        return 2**bits - 1 if bits else None
    return tiff_top(getattr(image, "tag_v2", {}))


def tiff_top(tags: Mapping[int, Any]) -> int | None:
    """The same by the tags of a TIFF."""
    for tag in (_MAX_SAMPLE, _SMAX_SAMPLE):
        if tag in tags:
            value = tags[tag]
            return int(max(value) if isinstance(value, tuple) else value)
    match = _BITS_OF_OME.search(str(tags.get(_DESCRIPTION, "")))
    return 2 ** int(match[1]) - 1 if match else None


def _png_bits(path: Path) -> int | None:
    """The significant bits by a PNG's chunk sBIT, which stands before its image."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT":
                return max(file.read(length), default=0) or None
            if kind in {b"IDAT", b"PLTE"}:
                return None
            file.seek(length + 4, os.SEEK_CUR)
    return None


def _ppm_top(path: Path) -> int:
    """The largest number by the head of a PGM or PPM: kind, width, height, this number."""
    with path.open("rb") as file:
        words = re.sub(rb"#[^\n]*", b"", file.read(4096)).split()
    # of a bitmap (P1, P4) there is none
    return int(words[3]) if words[0] in {b"P2", b"P3", b"P5", b"P6"} else 1


def _jpeg_2000_top(path: Path) -> int:
    """The same by the segment SIZ, which every JPEG 2000 codestream begins with."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    start = head.find(b"\xff\x4f\xff\x51")
    if start < 0:  # after longer metadata than are ever written
        return 0
    return int(2 ** ((head[start + 42] & 0x7F) + 1) - 1)


# Pillow spreads what is read of these formats over 16 bits
_SPREAD = {"PPM": _ppm_top, "JPEG2000": _jpeg_2000_top}


def to_8_bit(values: np.ndarray, declared: int | None = None, name: str = "") -> np.ndarray:
    """Scale numbers to 0..255; negative ones, and what is no number, become 0.

    Floats whose largest is at most 1 are taken for 0..1, at most 255 for 0..255.

    Args:
        values: (H, W) or (H, W, 3 or 4), the fourth being opacity; integers or floats.
        declared: the largest number that they may take; None, or less than there is: their own
            largest counts, which is said once in the log.
        name: of the file, for the log.

    Returns:
        uint8 of the same shape.
    """
    if values.dtype == np.uint8:
        return values
    colours = values[..., :3] if values.ndim == 3 else values
    largest = _largest(colours)
    full = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else None
    if full is None and largest <= 255:
        top = 1.0 if largest <= 1 else 255.0
    elif declared is not None and largest <= declared:
        top = float(declared)
    else:
        top = largest
        if largest not in {0, full}:
            _tell(name, largest, declared)
    result = np.empty(values.shape, np.uint8)
    result[..., :3] = 0  # an opacity may have a range of its own
    if values.ndim == 3 and values.shape[2] == 4:
        opacity = values[..., 3]
        most = _largest(opacity)
        _scale(opacity, result[..., 3], top if most <= top else float(full or most))
        _scale(colours, result[..., :3], top)
    else:
        _scale(values, result, top)
    return result


def _scale(values: np.ndarray, result: np.ndarray, top: float) -> None:
    """Into ``result``; band by band, since floats take eight times the memory."""
    factor = 255.0 / top if top > 0 else 0.0
    rows = max(1, _BAND // max(1, values[0].size)) if len(values) else 1
    for start in range(0, len(values), rows):
        band = np.nan_to_num(values[start : start + rows].astype(np.float64))
        result[start : start + rows] = np.clip(np.rint(band * factor), 0, 255)


def _largest(values: np.ndarray) -> float:
    if values.dtype.kind == "f":
        return float(np.max(values, initial=0.0, where=np.isfinite(values)))
    return float(values.max(initial=0))


def _tell(name: str, largest: float, declared: int | None) -> None:
    if name in _told:
        return
    _told.add(name)
    says = f"declares {declared}" if declared is not None else "declares no range"
    logger.warning(
        "%s: more than 8 bits a channel. It %s, so that its largest number, %g, is shown as 255.",
        name or "an image", says, largest,
    )  # fmt: skip


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value
