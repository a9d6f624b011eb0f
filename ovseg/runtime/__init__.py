"""Segmentation over onnxruntime and NumPy, without PyTorch, detectron2 and open_clip.

    from ovseg.runtime import Predictor

    predictor = Predictor("exported")
    prediction = predictor("photo.jpg", ["dog", "grass", "blue sky"])

The folder is what ``ovseg export`` writes. The stages are those of :mod:`ovseg.modeling`, each a
file here too::

    image -> proposals -> crops -> CLIP -> ensemble -> segmentation

The names below are imported when they are first asked for, since they need onnxruntime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .encoded_image import EncodedImage
    from .predictor import Predictor

__all__ = ["EncodedImage", "Predictor"]

_MODULE_OF = {
    "EncodedImage": "ovseg.runtime.encoded_image",
    "Predictor": "ovseg.runtime.predictor",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ovseg.runtime' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
