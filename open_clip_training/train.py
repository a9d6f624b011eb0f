"""Adapt CLIP to masked crops by mask-noun pairs: fine-tuning, mask prompt tuning (paper 3.2, 3.3).

    python open_clip_training/train.py --clip ViT-B/16 --train-data pairs/pairs.csv \\
        --train visual --output output/adapted/clip.pt
    torchrun --nproc-per-node 8 open_clip_training/train.py --clip output/adapted/clip.pt \\
        --train-data pairs/pairs.csv --train mask-prompts --output output/adapted/clip_prompts.pt

The text tower and the temperature stay as they are. Crops of the same noun in a batch are not each
other's negatives (--plain-loss: they are, as published). The loss is that of the whole batch,
however many processes and passes (--accumulate) share it.

--regions shared adapts CLIP to one pass of the whole image for all of its regions, on a data set
with ground truth. With --train mask-queries or mask-bias --output is a small file for
MODEL.CLIP_ADAPTER.SHARED_WEIGHTS:

    python open_clip_training/train.py --regions shared --train mask-queries --clip ViT-B/16 \\
        --train-data coco_2017_train_stuff_sem_seg --resolution 336 --output output/queries.pt

With CLIP frozen, --train text-prompts learns vectors that stand before a class name in place of a
template, and --train template-map learns weights of the templates. Both run in one process.
--output is then a small file for MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT or TEMPLATE_MAP.

Beside --output are written: <name>_resume.pt (for --resume), <name>_history.json (losses,
accuracies, counts) and <name>_tensorboard. The result is a checkpoint of open_clip's form, which
MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME and CLIP_PRETRAINED take, as does --clip.
"""

from __future__ import annotations

from collections.abc import Sequence

from open_clip_training.adaptation.options import FROZEN, check_inputs, parse_arguments
from open_clip_training.common.options import check_start
from open_clip_training.common.scripts import run_script


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says.

    Raises:
        UserError: an argument or the data cannot be used.
    """
    options = parse_arguments(arguments, __doc__)
    check_inputs(options)
    check_start(options)
    # only now: torch and open_clip take seconds, and --help need not wait for them
    if options.regions == "shared":
        from open_clip_training.regions.loop import adapt_to_regions

        adapt_to_regions(options)
        return
    from open_clip_training.adaptation.loop import adapt, learn

    (learn if options.train in FROZEN else adapt)(options)


if __name__ == "__main__":
    run_script(main)
