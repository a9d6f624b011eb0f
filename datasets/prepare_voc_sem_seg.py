"""Prepare Pascal VOC 2012 with 20 classes.

    python datasets/prepare_voc_sem_seg.py --split val

reads VOCdevkit/VOC2012/SegmentationClassAug and writes VOCdevkit/VOC2012/annotations_detectron2
for pascalvoc20_sem_seg_train and pascalvoc20_sem_seg_val. datasets/README.md says where the
archives come from. A stopped run goes on where it was.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.data.preparation.command import prepare
from ovseg.data.preparation.voc import plan
from ovseg.errors import cli_errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare what the command line asks for; returns the exit code."""
    return prepare(__doc__ or "", plan, arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with cli_errors():
        sys.exit(main())
