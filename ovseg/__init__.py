"""OVSeg: open-vocabulary semantic segmentation with mask-adapted CLIP.

    from ovseg import Predictor

    predictor = Predictor.from_pretrained("tiny")
    prediction = predictor("photo.jpg", ["oculus", "ukulele"])

The pipeline, each stage a file of :mod:`ovseg.modeling`::

    image -> proposals -> crops -> CLIP -> ensemble -> segmentation

The names below are imported when they are first asked for, so that ``import ovseg`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import add_ovseg_config
    from .errors import UserError
    from .modeling import OVSeg
    from .prediction import Prediction
    from .predictor import Predictor

__version__ = "0.1.0"

__all__ = ["OVSeg", "Prediction", "Predictor", "UserError", "add_ovseg_config"]

_MODULE_OF = {
    "OVSeg": "ovseg.modeling",
    "Prediction": "ovseg.prediction",
    "Predictor": "ovseg.predictor",
    "UserError": "ovseg.errors",
    "add_ovseg_config": "ovseg.config",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ovseg' has no attribute {name!r}")
    from .errors import NO_DETECTRON2, lacks_detectron2, without_notices

    try:
        with without_notices():
            module = importlib.import_module(_MODULE_OF[name])
    except ModuleNotFoundError as error:
        if not lacks_detectron2(error):
            raise
        raise ImportError(NO_DETECTRON2) from error
    return getattr(module, name)
