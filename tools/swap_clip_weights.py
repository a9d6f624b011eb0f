#!/usr/bin/env python3
"""Put adapted CLIP weights into an OVSeg checkpoint, or take them out of one.

    python tools/swap_clip_weights.py put OVSEG.pth ADAPTED_CLIP.pt NEW_OVSEG.pth --verify
    python tools/swap_clip_weights.py take OVSEG.pth CLIP.pt --name ViT-L/14 --verify

Another name of ``ovseg weights swap``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovseg.cli.weights import run, swap_arguments
from ovseg.errors import Parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = Parser(__doc__)
    swap_arguments(parser)
    run(parser, argv)


if __name__ == "__main__":
    main()
