"""Prepare ADE20K with 150 classes.

    python datasets/prepare_ade20k_sem_seg.py --split val

reads ADEChallengeData2016/annotations and writes ADEChallengeData2016/annotations_detectron2 for
ade20k_sem_seg_train and ade20k_sem_seg_val. datasets/README.md says where the archive comes from.
A stopped run goes on where it was.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.data.preparation.ade20k import plan
from ovseg.data.preparation.command import prepare
from ovseg.errors import cli_errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare what the command line asks for; returns the exit code."""
    return prepare(__doc__ or "", plan, arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with cli_errors():
        sys.exit(main())
