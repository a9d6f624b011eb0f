#!/usr/bin/env python3
"""Convert an official Swin Transformer checkpoint to a backbone file for detectron2.

    python tools/convert-pretrained-swin-model-to-d2.py \\
        swin_base_patch4_window12_384_22k.pth swin_base_patch4_window12_384_22k.pkl

Give the .pkl as MODEL.WEIGHTS to start a training from it.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence

from torch import Tensor

from ovseg.errors import UserError, cli_errors
from ovseg.utils.weights import read_state_dict, write_detectron2_pickle

logger = logging.getLogger(__name__)

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
    """Read, convert, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", help="official checkpoint (.pth)")
    parser.add_argument("output", help="file to write (.pkl)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    weights = read_state_dict(args.input)
    converted = convert(weights)
    write_detectron2_pickle(args.output, converted, author="Swin Transformer")
    left_out = len(weights) - len(converted)
    logger.info("%s: %d weights, %d left out", args.output, len(converted), left_out)


if __name__ == "__main__":
    with cli_errors():
        main()
