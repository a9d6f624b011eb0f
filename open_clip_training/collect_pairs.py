"""Collect mask-noun pairs from images with captions, or from ground-truth label maps.

    python open_clip_training/collect_pairs.py --config-file configs/ovseg_tiny.yaml \\
        --captions datasets/stickerscenes/captions_train.json \\
        --images datasets/stickerscenes/images/train --adjectives \\
        --output output/pairs --opts MODEL.WEIGHTS ovseg://tiny

A trained OVSeg proposes masks, the nouns come from the captions, and CLIP picks the best proposal
for each noun (paper section 3.2). The result is ready for open_clip_training/train.py and for
open_clip's own readers; open_clip_training/mining/folder.py says what is in it.

Several processes share the work with --num-gpus 8, without GPUs with --num-processes 8, or when
torchrun or srun starts them:

    torchrun --nproc-per-node 8 open_clip_training/collect_pairs.py ...

A stopped run goes on where it was when the same command is given again, and tries images again
that could not be read.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from open_clip_training.common.scripts import run_script
from open_clip_training.mining.options import parse_arguments


def main(arguments: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Collect as the command line says.

    Returns:
        The summary; None when another process makes it, or this one has started others.

    Raises:
        UserError: an argument or the data cannot be used.
    """
    options = parse_arguments(arguments, __doc__)
    # only now: torch and detectron2 take seconds, and --help need not wait for them
    from open_clip_training.mining.collect import collect_here, mining_cfg
    from ovseg.engine.processes import config_settings, start

    cfg = mining_cfg(options)
    summary: dict[str, Any] | None = start(
        functools.partial(collect_here, options),
        options,
        device=cfg.MODEL.DEVICE,
        output=None,  # made when the data are known to be of use
        settings=config_settings(cfg),
    )
    return summary


if __name__ == "__main__":
    run_script(main)
