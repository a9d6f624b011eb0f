"""Other methods of the published table, to be trained beside OVSeg: see docs/methods.md.

Importing it registers them with detectron2. They share backbone, pixel decoder, CLIP, mapper,
trainer and evaluation with OVSeg; each file's header names its paper, and what is simplified.
"""

from . import pixel_heads
from .openseg import OpenSeg
from .pixel_segmenter import PixelSegmenter

__all__ = ["OpenSeg", "PixelSegmenter", "pixel_heads"]
