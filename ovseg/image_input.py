"""Images of every kind that :class:`ovseg.Predictor` takes, as arrays."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ovseg.errors import UserError
from ovseg.utils.ahead import run_ahead
from ovseg.utils.images import read_image, rgb_array

if TYPE_CHECKING:
    from torch import Tensor

    #: one image: a path; a Pillow image; uint8 (H, W, 3), RGB; or a tensor (3, H, W), RGB, uint8
    #: in 0..255 or float in 0..1
    ImageSource = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
else:  # without PyTorch there are no tensors
    ImageSource = Any


def is_one_image(images: Any) -> bool:
    """Whether something is one image and not several."""
    if isinstance(images, np.ndarray) or _is_tensor(images):
        dimensions: int = images.ndim
        return dimensions <= 3
    return isinstance(images, str | os.PathLike | Image.Image)


def check_several(images: Any) -> None:
    """Check that something may be several images.

    Raises:
        UserError: it is one image.
        ValueError: it is neither.
    """
    if is_one_image(images):  # the letters of a path, or the rows of an array, are no images
        raise UserError("images is a single image; give a list: [image]")
    is_file = isinstance(images, bytes | bytearray) or hasattr(images, "read")
    if is_file or not (hasattr(images, "__iter__") or hasattr(images, "__getitem__")):
        _as_array(images, bgr=False)  # says what an image must be


def image_array(image: ImageSource, bgr: bool) -> np.ndarray:
    """An image as uint8 (H, W, 3), RGB."""
    return _as_array(_kept(image), bgr)


def _as_array(image: ImageSource, bgr: bool) -> np.ndarray:
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _pillow_array(image)
    if _is_tensor(image):
        image = _tensor_array(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(
            "image must be a path, a Pillow image, an array or a tensor, "
            f"not {'None; was the file read?' if image is None else type(image).__name__}"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
    return np.ascontiguousarray(image[:, :, ::-1]) if bgr else image


def _pillow_array(image: Image.Image) -> np.ndarray:
    if 0 in image.size:
        raise ValueError(f"image has {image.width} x {image.height} pixels; give one with some")
    try:
        return rgb_array(image)
    except OSError as error:  # Pillow reads a file when its pixels are asked for
        raise UserError(f"the Pillow image cannot be read ({error}); give an intact one") from error


def _is_tensor(image: Any) -> bool:
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    return torch is not None and isinstance(image, torch.Tensor)


def _tensor_array(image: Any) -> np.ndarray:
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"a tensor must be (3, H, W), not {tuple(image.shape)}")
    image = image.detach().cpu()
    if image.is_floating_point():
        if not (image.numel() and float(image.min()) >= 0 and float(image.max()) <= 1):
            raise ValueError("a tensor of floats must have values in 0..1; or give uint8 in 0..255")
        image = (255 * image).round().byte()
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def read_ahead(
    images: Iterable[ImageSource],
    bgr: bool,
    on_error: Callable[[ImageSource, Exception], None] | None,
    ahead: int,
) -> Iterator[np.ndarray]:
    """Images as arrays, up to ``ahead`` of them read before they are asked for."""
    images = map(_kept, images)
    with closing(run_ahead(images, lambda image: _as_array(image, bgr), ahead)) as pairs:
        for image, reading in pairs:
            try:
                array = reading.result()
            except (UserError, ValueError) as error:
                if on_error is None:
                    raise
                on_error(image, error)
            else:
                yield array


def _kept(image: Any) -> Any:
    """A copy of what the caller may write into afterwards, as who uses one array for all does."""
    if isinstance(image, np.ndarray):
        return image.copy()
    return image.detach().clone() if _is_tensor(image) else image


def batches(
    images: Iterable[ImageSource],
    bgr: bool,
    batch_size: int,
    on_error: Callable[[ImageSource, Exception], None] | None,
) -> Iterator[list[np.ndarray]]:
    """Images as arrays, ``batch_size`` at a time, read ahead; see :func:`read_ahead`.

    Raises:
        UserError, ValueError: see :func:`check_several`.
        ValueError: ``batch_size`` is no number, or below 1.
    """
    check_several(images)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size {batch_size!r} must be a whole number of at least 1")
    arrays = read_ahead(images, bgr, on_error, 2 * batch_size)
    while batch := list(islice(arrays, batch_size)):
        yield batch
