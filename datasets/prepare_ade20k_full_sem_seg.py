"""Prepare ADE20K-Full with 847 classes.

    python datasets/prepare_ade20k_full_sem_seg.py --split val

reads the images that ADE20K_2021_17_01/index_ade20k.pkl lists and writes images_detectron2 and
annotations_detectron2 beside it for ade20k_full_sem_seg_train and ade20k_full_sem_seg_val. Images
with both sides above 512 pixels are made smaller. datasets/README.md says where the archive comes
from. A stopped run goes on where it was.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.data.preparation.ade20k_full import plan
from ovseg.data.preparation.command import prepare
from ovseg.errors import cli_errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare what the command line asks for; returns the exit code."""
    return prepare(__doc__ or "", plan, arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with cli_errors():
        sys.exit(main())
