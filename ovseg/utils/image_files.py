"""Writing images by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ovseg.utils.io import atomic_path


def write_image(path: Path, image: np.ndarray, options: Sequence[int] = ()) -> None:
    """Write an image, whole or not at all.

    ``cv2.imwrite`` says that it has written a small file that a full disk did not take: nobody
    looks whether closing the file succeeded. So OpenCV encodes, and Python writes.

    Args:
        path: its suffix says the format.
        image: (H, W) or (H, W, 3), BGR, of a type that the format takes.
        options: OpenCV's, ``[flag, value, ...]``.

    Raises:
        OSError: it cannot be written; names ``path``.
        cv2.error: OpenCV has no such format, or it does not take such an image.
    """
    encoded = cv2.imencode(path.suffix, image, list(options))[1]
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
