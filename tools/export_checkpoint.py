#!/usr/bin/env python3
"""Make a training checkpoint fit to give away: weights alone, in half precision.

    python tools/export_checkpoint.py output/ovseg_tiny/model_final.pth resources/ovseg_tiny.pth
    python tools/export_checkpoint.py output/ovseg_tiny/model_final.pth --safetensors my_model

Another name of ``ovseg weights export``, whose --help says more.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovseg.cli.weights import export_arguments, run
from ovseg.errors import Parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = Parser(__doc__)
    export_arguments(parser)
    run(parser, argv)


if __name__ == "__main__":
    main()
