"""The images that a model does worst and best on."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ovseg.evaluation.pictures import ExtremeImages


def test_the_extremes_are_drawn_and_their_images_not_kept(tmp_path: Path) -> None:
    kept = ExtremeImages(1)
    held = []
    for name, score in (("a", 0.2), ("b", 0.9), ("c", 0.5)):
        Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
        Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / f"{name}_truth.png")
        example = {
            "file_name": str(tmp_path / f"{name}.png"),
            "sem_seg_file_name": str(tmp_path / f"{name}_truth.png"),
            "image": torch.zeros(3, 30, 40), "proposals": torch.zeros(100, 30, 40),
        }  # fmt: skip
        held += [weakref.ref(example["image"]), weakref.ref(example["proposals"])]
        kept.offer(score, example, np.zeros((30, 40), np.int32))
        del example
    assert not any(reference() is not None for reference in held)
    kept.save(tmp_path / "out", ["dog"], ignore_label=255)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "best_01_b.jpg", "worst_01_a.jpg",
    ]  # fmt: skip
