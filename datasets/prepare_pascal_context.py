"""Prepare Pascal Context with 59 and with 459 classes.

    python datasets/prepare_pascal_context.py --split val

reads VOCdevkit/VOC2010/trainval/*.mat and writes VOCdevkit/VOC2010/annotations_detectron2 for
pascal_context_59_sem_seg_* and pascal_context_459_sem_seg_*. datasets/README.md says where the
archives come from. A stopped run goes on where it was.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.data.preparation.command import prepare
from ovseg.data.preparation.pascal_context import plan
from ovseg.errors import cli_errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare what the command line asks for; returns the exit code."""
    return prepare(__doc__ or "", plan, arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with cli_errors():
        sys.exit(main())
