"""The network; importing it registers its parts with detectron2."""

from . import backbone, proposals
from .ovseg import OVSeg

__all__ = ["OVSeg", "backbone", "proposals"]
