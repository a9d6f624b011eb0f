#!/usr/bin/env python3
"""Convert a ResNet in torchvision's naming to a backbone file for detectron2.

    python tools/convert-torchvision-to-d2.py resnet101.pth R-101.pkl

Fits ResNets with one 7x7 stem convolution (torchvision) and with three 3x3 ones (ResNet-c, as for
R101c: MODEL.RESNETS.STEM_TYPE "deeplab"). Such weights want INPUT.FORMAT "RGB",
MODEL.RESNETS.STRIDE_IN_1X1 False, and ImageNet's mean and deviation in MODEL.PIXEL_MEAN and
MODEL.PIXEL_STD (0..255), all of which OVSeg's configs set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from ovseg.errors import UserError, cli_errors
from ovseg.utils.weights import convert_file

_NAME = re.compile(
    r"(?:layer(?P<layer>[1-4])\.(?P<block>\d+)\.)?(?P<part>\w+(?:\.\d)?)\.(?P<kind>\w+)"
)
_PARTS = {
    **{f"conv{n}": f"conv{n}" for n in (1, 2, 3)},
    **{f"bn{n}": f"conv{n}.norm" for n in (1, 2, 3)},
    "downsample.0": "shortcut",
    "downsample.1": "shortcut.norm",
}


def rename(name: str) -> str | None:
    """detectron2's name of a torchvision ResNet weight; ``None`` for what its backbones lack."""
    match = _NAME.fullmatch(name)
    if match is None or match["part"] not in _PARTS or match["kind"] == "num_batches_tracked":
        return None
    stage = f"res{int(match['layer']) + 1}.{match['block']}" if match["layer"] else "stem"
    return f"{stage}.{_PARTS[match['part']]}.{match['kind']}"


def convert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a detectron2 ResNet takes, under its names.

    Raises:
        UserError: these are not the weights of a ResNet in torchvision's naming.
    """
    for name in ("conv1.weight", "layer4.0.conv1.weight"):
        if name not in weights:
            raise UserError(f"no ResNet in torchvision's naming: {name} is missing")
    names = {name: rename(name) for name in weights}
    return {new: weights[old] for old, new in names.items() if new is not None}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    convert_file(argv, __doc__, "ResNet state dict (.pth)", convert, author="torchvision")


if __name__ == "__main__":
    with cli_errors():
        main()
