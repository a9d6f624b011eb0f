"""Prepare COCO-Stuff (171 classes), the training data.

    python datasets/prepare_coco_stuff_sem_seg.py

reads coco/stuffthingmaps/{train2017,val2017} and writes coco/stuffthingmaps_detectron2 for
coco_2017_train_stuff_sem_seg and coco_2017_val_stuff_sem_seg. datasets/README.md says where the
archives come from. A stopped run goes on where it was.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.data.preparation.coco_stuff import plan
from ovseg.data.preparation.command import prepare
from ovseg.errors import cli_errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare what the command line asks for; returns the exit code."""
    return prepare(__doc__ or "", plan, arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with cli_errors():
        sys.exit(main())
