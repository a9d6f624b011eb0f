"""Reading label maps."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from ovseg.errors import UserError


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a label map: grey or palette PNG/TIFF of 8 or 16 bit.

    Returns:
        (H, W) of uint8, uint16 or int32: the stored values (palette indices, not colours).

    Raises:
        UserError: the file is missing or broken, or has several channels.
    """
    try:
        with Image.open(path) as file:
            labels = np.asarray(file)
    except FileNotFoundError as error:
        raise UserError(
            f"label map {os.fspath(path)} is missing; prepare the data set again"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"label map {os.fspath(path)} cannot be read ({error}); prepare it again"
        ) from error
    if labels.ndim != 2:
        raise UserError(
            f"label map {os.fspath(path)} has {labels.shape[-1]} channels; "
            "it needs one, whose values are class labels"
        )
    return labels.astype(np.uint8) if labels.dtype == bool else labels
