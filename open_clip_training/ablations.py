"""The paper's ablations in miniature, on StickerScenes: one command.

    python open_clip_training/ablations.py --output output/ablations

It needs the CLIP of pretrain.py and the network that train_net.py trained with it (--clip,
--weights). It mines mask-noun pairs from the captions of ``train`` with collect_pairs.py, and
adapts that CLIP with train.py in every way that a row of the paper's Tables 2, 3, 4 and 6, of what
is learned for the texts or of the faster modes asks for, with three seeds each. It compares the
results on the trained MaskFormer's own proposals, which are computed once. The ensemble weight of
each run is chosen on ``dev`` and reported on ``test``. The rows of the paper's tables take some 70
minutes on two cores.

Results: table.md, table.json, chart.png. What is done is kept: the same command goes on after an
interruption. Pairs are mined by a process for each core, four at most (--processes), or for each
GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

from open_clip_training.ablation.options import parse_arguments
from open_clip_training.common.scripts import refuse_several_processes, run_script


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ablation, or the rest of it.

    Raises:
        UserError: an argument or the data cannot be used, or a command failed.
    """
    refuse_several_processes()
    options = parse_arguments(arguments, __doc__)
    # only now: torch and detectron2 take seconds, and --help need not wait for them
    from open_clip_training.ablation.steps import ablate

    ablate(options)


if __name__ == "__main__":
    run_script(main)
