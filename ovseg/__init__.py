"""OVSeg: open-vocabulary semantic segmentation with mask-adapted CLIP.

The pipeline, each stage a file of :mod:`ovseg.modeling`::

    image -> proposals -> crops -> CLIP -> ensemble -> segmentation
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec

if find_spec("detectron2") is None:
    raise ImportError("OVSeg needs detectron2: run python tools/install_detectron2.py")

with warnings.catch_warnings():
    # fvcore scripts two losses when it is imported, which PyTorch announces to end one day
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
    from .config import add_ovseg_config
    from .errors import UserError
    from .modeling import OVSeg
    from .structures import Prediction

__version__ = "0.1.0"

__all__ = ["OVSeg", "Prediction", "UserError", "add_ovseg_config"]
