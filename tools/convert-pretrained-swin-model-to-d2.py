#!/usr/bin/env python3
"""Convert an official Swin Transformer checkpoint to a backbone file for detectron2.

    python tools/convert-pretrained-swin-model-to-d2.py \\
        swin_base_patch4_window12_384_22k.pth swin_base_patch4_window12_384_22k.pkl

Give the .pkl as MODEL.WEIGHTS to start a training from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ovseg.errors import UserError, cli_errors
from ovseg.utils.weights import convert_file

_REQUIRED = ("patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table")
# the classifier and the norm before it have no place in a backbone, whose outputs have their own
# norms; attention masks depend on the picture's size and are made for each
_HEAD_PREFIXES = ("head.", "norm.")
_MASK_SUFFIX = ".attn_mask"


def convert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a Swin backbone takes, under unchanged names.

    Raises:
        UserError: these are not the weights of a Swin Transformer in its official naming.
    """
    missing = [name for name in _REQUIRED if name not in weights]
    if missing:
        raise UserError(f"no Swin Transformer in its official naming: {missing[0]} is missing")
    return {
        name: value
        for name, value in weights.items()
        if not name.startswith(_HEAD_PREFIXES) and not name.endswith(_MASK_SUFFIX)
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    convert_file(argv, __doc__, "official checkpoint (.pth)", convert, author="Swin Transformer")


if __name__ == "__main__":
    with cli_errors():
        main()
