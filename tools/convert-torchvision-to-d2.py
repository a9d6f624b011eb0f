#!/usr/bin/env python3
"""Convert a ResNet in torchvision's naming to a backbone file for detectron2.

    python tools/convert-torchvision-to-d2.py resnet101.pth R-101.pkl

Fits ResNets with one 7x7 stem convolution (torchvision) and with three 3x3 ones (ResNet-c, as for
R101c: MODEL.RESNETS.STEM_TYPE "deeplab"). Such weights want INPUT.FORMAT "RGB",
MODEL.RESNETS.STRIDE_IN_1X1 False, and ImageNet's mean and deviation in MODEL.PIXEL_MEAN and
MODEL.PIXEL_STD (0..255), all of which OVSeg's configs set. Another name of ``ovseg weights
convert``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovseg.cli.weights import convert_arguments, run
from ovseg.errors import Parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = Parser(__doc__)
    convert_arguments(parser, kind="torchvision")
    run(parser, argv)


if __name__ == "__main__":
    main()
