"""Images on the screen, by OpenCV."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

from ovseg.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

WINDOW = "OVSeg"
_ESCAPE = 27


def check_display() -> None:
    """Raise a UserError where no window can be opened."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise UserError("no display to show a window on; give --output, for example --output pred")
    if importlib.util.find_spec("cv2") is None:
        raise UserError("windows need OpenCV (pip install opencv-python); or give --output")


def show(image: np.ndarray | Image.Image, wait_ms: int = 0) -> bool:
    """Show an image, RGB, until a key is pressed; False after Escape.

    ``wait_ms`` milliseconds are waited for a key, where that is not 0.
    """
    import cv2
    import numpy as np

    try:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
        cv2.imshow(WINDOW, cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR))
        return cv2.waitKey(wait_ms) != _ESCAPE
    except cv2.error as error:
        raise UserError("this OpenCV cannot open windows; give --output") from error
