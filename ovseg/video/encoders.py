"""What turns frames into files: H.264 by PyAV where it is installed, otherwise OpenCV's codecs."""

from __future__ import annotations

import logging
import os
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ovseg.errors import UserError
from ovseg.utils.io import check_room

logger = logging.getLogger(__name__)

#: what can be written, and the four-character code of OpenCV's compression
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "MJPG"}
# written as H.264, which browsers, players and slides show; AVI cannot hold its frames' order
_H264 = {".mp4", ".m4v", ".mov", ".mkv"}
# smaller is better and larger; regions of flat colour show errors early
_QUALITY = {"crf": "18", "preset": "veryfast"}
# FFmpeg's AVCOL_SPC_SMPTE170M and AVCOL_RANGE_MPEG
_BT601, _LIMITED = 6, 1


def opencv() -> Any:
    """OpenCV, which writes nothing to the terminal: what is wrong is said by our errors."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    import cv2

    return cv2


class VideoEncoder(Protocol):
    """Writes frames of one size, uint8 (H, W, 3), RGB, with even sides."""

    def write(self, frame: np.ndarray) -> None: ...

    def close(self) -> None: ...


def make_encoder(path: Path, rate: float, height: int, width: int) -> VideoEncoder:
    """What writes a file; its suffix is one of :data:`CODECS`.

    Raises:
        UserError: such files cannot be written, or not there.
        OSError: the disk is full.
    """
    if path.suffix.lower() in _H264 and find_spec("av"):
        return _PyAvEncoder(path, rate, height, width)
    if path.suffix.lower() in _H264:
        logger.warning(
            "%s is written without PyAV, in a compression that browsers do not play; "
            "pip install av for H.264", path.suffix.lower(),
        )  # fmt: skip
    return _OpenCvEncoder(path, rate, height, width)


class _PyAvEncoder:
    def __init__(self, path: Path, rate: float, height: int, width: int) -> None:
        import av

        # the index in front of the frames: a page can play what is not yet there as a whole
        options = {"movflags": "+faststart"} if path.suffix.lower() != ".mkv" else {}
        try:
            self._container = av.open(str(path), "w", options=options)
            self._stream = self._container.add_stream(
                "libx264", rate=Fraction(rate).limit_denominator(1001), options=_QUALITY
            )
            self._stream.height, self._stream.width = height, width
            self._stream.pix_fmt = "yuv420p"  # of all, the one that every player knows
            # by which FFmpeg converts; where a file does not say it players guess
            self._stream.codec_context.colorspace = _BT601
            self._stream.codec_context.color_range = _LIMITED
            self._container.start_encoding()
        except av.FFmpegError as error:
            check_room(path)
            raise UserError(
                f"{str(path.parent)!r} takes no video ({error}); give another --output"
            ) from error

    def write(self, frame: np.ndarray) -> None:
        import av

        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


class _OpenCvEncoder:
    def __init__(self, path: Path, rate: float, height: int, width: int) -> None:
        cv2 = opencv()
        code = cv2.VideoWriter_fourcc(*CODECS[path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(path), code, rate, (width, height))
        if not self._writer.isOpened():
            check_room(path)
            raise UserError(
                f"this OpenCV cannot write {path.suffix} files to "
                f"{str(path.parent)!r}; give another --output, for example pred.avi"
            )

    def write(self, frame: np.ndarray) -> None:
        self._writer.write(np.ascontiguousarray(frame[:, :, ::-1]))

    def close(self) -> None:
        self._writer.release()
