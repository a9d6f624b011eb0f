#!/usr/bin/env python3
"""Convert an official Swin Transformer checkpoint to a backbone file for detectron2.

    python tools/convert-pretrained-swin-model-to-d2.py \\
        swin_base_patch4_window12_384_22k.pth swin_base_patch4_window12_384_22k.pkl

Give the .pkl as MODEL.WEIGHTS to start a training from it. Another name of ``ovseg weights
convert``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovseg.cli.weights import convert_arguments, run
from ovseg.errors import Parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = Parser(__doc__)
    convert_arguments(parser, kind="swin")
    run(parser, argv)


if __name__ == "__main__":
    main()
