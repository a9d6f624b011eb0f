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
import warnings
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


# fvcore scripts two losses when it is imported, which PyTorch announces to end one day. Here, since
# any part of OVSeg may be the first to import it: this one message is not shown
warnings.filterwarnings(
    "ignore", message="`torch.jit.script` is deprecated", category=FutureWarning
)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ovseg' has no attribute {name!r}")
    try:
        module = importlib.import_module(_MODULE_OF[name])
    except ModuleNotFoundError as error:
        from .errors import NO_DETECTRON2, lacks_detectron2

        if not lacks_detectron2(error):
            raise
        raise ImportError(NO_DETECTRON2) from error
    return getattr(module, name)
