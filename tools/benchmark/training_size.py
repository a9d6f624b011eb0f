"""Count what one image costs in training: operations, and memory for what backward needs.

    python tools/benchmark/training_size.py configs/ovseg_R101c_vitB_bs32_120k.yaml

Weights and image are random, so nothing is downloaded and any machine gives the same counts. From
them the hours and memory on GPUs are estimated that docs/distributed.md names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from detectron2.structures import Instances
from torch.utils.flop_counter import FlopCounterMode

from ovseg.config import setup_cfg
from ovseg.engine.trainer import Trainer
from ovseg.vocabulary import Vocabulary

GIB = 1 << 30
#: masks of an image of COCO-Stuff, rounded up
MASKS = 8


def count(config: str) -> dict[str, float]:
    """Operations and bytes of one image with its targets."""
    cfg = setup_cfg(config, ["MODEL.DEVICE", "cpu", "MODEL.CLIP_ADAPTER.CLIP_PRETRAINED", ""])
    model = Trainer.build_model(cfg).train()
    height, width = cfg.INPUT.CROP.SIZE
    targets = Instances((height, width))
    targets.gt_classes = torch.arange(MASKS)
    targets.gt_masks = torch.rand(MASKS, height, width) > 0.5
    words = [f"word {index}" for index in range(171)]
    example = {
        "image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8),
        "height": height, "width": width, "instances": targets, "class_names": words,
    }  # fmt: skip
    model.text(Vocabulary.of(words))  # encoded once in a training
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        if not isinstance(value, torch.nn.Parameter):
            storage = value.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    counter = FlopCounterMode(display=False)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value)
    with counter, hooks:
        loss = sum(model([example]).values())
        activations = sum(kept.values())
        loss.backward()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return {
        "TFLOP forward and backward": counter.get_total_flops() / 1e12,
        "GiB of activations": activations / GIB,
        "GiB of weights, gradients, AdamW": (4 * trained + frozen) * 4 / GIB,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print the counts of each config."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+")
    for config in parser.parse_args(argv).configs:
        print(config, f"torch {torch.__version__}, float32", sep="\n", flush=True)
        for name, value in count(config).items():
            print(f"{name:>34} {value:8.2f}")


if __name__ == "__main__":
    main()
