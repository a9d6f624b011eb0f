"""Which check ``--eval-data`` stands for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from open_clip_training.adaptation.class_folders import ClassFolderCheck
from open_clip_training.adaptation.region_accuracy import RegionCheck
from open_clip_training.adaptation.zero_shot import ZeroShotCheck
from ovseg.errors import UserError


def eval_data_check(options: argparse.Namespace) -> ZeroShotCheck[Any] | None:
    """The check that a command line asks for, if any.

    Raises:
        UserError: the data cannot be used.
    """
    if not options.eval_data:
        if options.eval_classes:
            raise UserError("--eval-classes is for --eval-data FOLDER; give that too")
        return None
    folder = Path(options.eval_data)
    if folder.is_dir():
        return ClassFolderCheck(
            folder, options.eval_classes, options.eval_images, options.fill_tolerance
        )
    if options.eval_classes:
        raise UserError(
            f"--eval-classes is for a folder of class folders; {options.eval_data!r} has its own"
        )
    return RegionCheck(options.eval_data, options.eval_images)
