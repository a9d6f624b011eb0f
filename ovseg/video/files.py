"""Videos: the frames of a file or a camera, read by OpenCV, and a file of frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from ovseg.errors import UserError
from ovseg.utils.io import check_room, user_path

from .encoders import CODECS, VideoEncoder, make_encoder, opencv

__all__ = ["CODECS", "VideoFile", "VideoSource"]

# of cameras and files that do not say it
_USUAL_RATE = 25.0


class VideoSource:
    """The frames of a video file or of a camera.

    Attributes:
        rate: frames a second.
        announced: frames that the file says it has; None of a camera.
        count: frames that were read so far.
    """

    def __init__(self, source: str) -> None:
        """Open it.

        Args:
            source: the path of a file, or the number of a camera, from 0.

        Raises:
            UserError: there is no such file or camera, or it is no video.
        """
        cv2 = opencv()
        self.is_camera = source.isascii() and source.isdigit() and not Path(source).exists()
        self.name = source
        path = user_path(source)
        if not source or path.suffix.lower() == ".gif":  # OpenCV reads one frame of them
            what = "is a GIF, which is not read as a video" if source else "is empty"
            raise UserError(f"input {source!r} {what}; give an MP4, AVI or MKV file")
        if not self.is_camera and not path.is_file():
            what = "is a folder, a video file is needed" if path.is_dir() else "does not exist"
            raise UserError(f"input {source!r} {what}; give a video, or the number of a camera")
        self._capture = cv2.VideoCapture(int(source) if self.is_camera else str(path))
        if not self._capture.isOpened():
            if self.is_camera:
                raise UserError(f"there is no camera {source}; give another number, or a file")
            raise UserError(
                f"input {source!r} cannot be opened as a video; give an intact MP4, AVI or MKV file"
            )
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if 0 < rate < 1000 else _USUAL_RATE
        announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.announced = None if self.is_camera or announced <= 0 else announced
        self.count = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames, uint8 (H, W, 3), RGB; as long as they can be read."""
        while True:
            there, frame = self._capture.read()
            if not there or frame is None:
                return
            self.count += 1
            yield np.ascontiguousarray(frame[:, :, ::-1])

    @property
    def broke_off(self) -> bool:
        """Whether, at its end, a file gave fewer frames than it announced."""
        if self.announced is None:
            return False
        return is_too_few(self.count, self.announced)

    def close(self) -> None:
        """Let the file or the camera go."""
        self._capture.release()


def is_too_few(frames: int, announced: int) -> bool:
    """Whether a file lacks frames; since some estimate their number, one or 2 % may be missing."""
    return frames < announced - max(1, round(0.02 * announced))


class VideoFile:
    """A video that is written frame by frame; as a context it is closed and looked at at the end.

    Leaving the context raises what :meth:`write` does where the file is not whole.
    """

    def __init__(self, path: Path, rate: float) -> None:
        """Nothing is written before the first frame, which says the size.

        Args:
            path: with a suffix of :data:`CODECS`.
            rate: frames a second.
        """
        self.path = path
        self.rate = rate
        self.count = 0
        self._encoder: VideoEncoder | None = None
        self._shape: tuple[int, ...] = ()

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, uint8 (H, W, 3), RGB, of the first one's size.

        Raises:
            UserError: such files cannot be written, or not there.
            OSError: the disk is full.
            ValueError: a frame of another size, which OpenCV would drop without a word.
        """
        # compression takes even sizes only, and would cut a row or column off
        odd = [(0, side % 2) for side in frame.shape[:2]]
        frame = np.pad(frame, [*odd, (0, 0)], mode="edge")
        if self._encoder is None:
            self._shape = frame.shape
            self._encoder = make_encoder(self.path, self.rate, *frame.shape[:2])
        if frame.shape != self._shape:
            raise ValueError(f"a frame of {frame.shape} in a video of {self._shape}")
        self._encoder.write(frame)
        self.count += 1

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._encoder is not None:
            self._encoder.close()
            if kind is None:
                self._check_whole()

    def _check_whole(self) -> None:
        """Encoders need not say when a frame, or the index at the file's end, cannot be written."""
        capture = opencv().VideoCapture(str(self.path))
        there = int(capture.get(opencv().CAP_PROP_FRAME_COUNT))
        capture.release()
        if is_too_few(there, self.count):
            check_room(self.path)
            raise UserError(
                f"{max(there, 0)} of {self.count} frames were written to "
                f"{str(self.path.parent)!r}; give another --output, for example pred.avi"
            )
