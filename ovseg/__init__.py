"""OVSeg: open-vocabulary semantic segmentation with mask-adapted CLIP.

The pipeline, each stage a file of :mod:`ovseg.modeling`::

    image -> proposals -> crops -> CLIP -> ensemble -> segmentation
"""

from __future__ import annotations

from .config import add_ovseg_config
from .errors import UserError
from .modeling import OVSeg
from .structures import Prediction

__version__ = "0.1.0"

__all__ = ["OVSeg", "Prediction", "UserError", "add_ovseg_config"]
