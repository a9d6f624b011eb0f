"""Pretrain a config's backbone by the classes of true regions.

    python open_clip_training/pretrain_backbone.py --output output/backbone_tiny/backbone.pth
    python train_net.py --config-file configs/ovseg_tiny.yaml \\
        MODEL.WEIGHTS output/backbone_tiny/backbone.pth

This takes the place of ImageNet where there is no pretrained backbone. The backbone's last map is
averaged over each true region of an image, and a linear layer takes the mean to CLIP's text space,
where the name of the region's class is to be the nearest. What --train-data ignores (the unseen
objects of StickerScenes) is never learned. Beside --output are written <name>_resume.pt (for
--resume) and <name>_history.json (losses and accuracies).
"""

from __future__ import annotations

from collections.abc import Sequence

from open_clip_training.backbone.options import parse_arguments
from open_clip_training.common.options import check_start
from open_clip_training.common.scripts import refuse_several_processes, run_script


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says.

    Raises:
        UserError: an argument, the config or the data cannot be used.
    """
    refuse_several_processes()
    options = parse_arguments(arguments, __doc__)
    check_start(options)
    # only now: torch and detectron2 take seconds, and --help need not wait for them
    from open_clip_training.backbone.loop import pretrain_backbone

    pretrain_backbone(options)


if __name__ == "__main__":
    run_script(main)
