"""A data set of a few images, a tiny CLIP and a tiny config, made on the spot for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from PIL import Image

from ovseg.config import setup_cfg
from ovseg.data.datasets import register_split
from ovseg.data.splits import SPLITS
from ovseg.modeling.clip import build_untrained_clip

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
#: made small by :data:`SMALL_MODEL`
SWIN = CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml"
# a CLIP whose input is not 224 pixels and whose vocabulary is the whole of CLIP's
CLIP_ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}

# makes a Swin config small enough to build in a moment
SMALL_MODEL: dict[str, object] = {
    "MODEL.WEIGHTS": "",
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "D2SwinTransformer",
    "MODEL.SWIN.EMBED_DIM": 16,
    "MODEL.SWIN.DEPTHS": [1, 2, 1, 1],
    "MODEL.SWIN.NUM_HEADS": [1, 2, 4, 4],
    "MODEL.SWIN.WINDOW_SIZE": 4,
    "MODEL.SEM_SEG_HEAD.EMBEDDING_DIM": 16,
    "MODEL.SEM_SEG_HEAD.EMBED_HIDDEN_DIM": 32,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 16,
    "MODEL.MASK_FORMER.HIDDEN_DIM": 32,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 6,
    "MODEL.MASK_FORMER.NHEADS": 2,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 32,
    "MODEL.MASK_FORMER.DEC_LAYERS": 2,
}


def write_clip(path: Path) -> Path:
    """A random CLIP with mask prompts, as a training checkpoint that says its architecture."""
    torch.manual_seed(0)
    model = build_untrained_clip(CLIP_ARCHITECTURE, 3)
    torch.nn.init.normal_(model.visual.mask_embedding)
    torch.save({"state_dict": model.state_dict(), "model_cfg": CLIP_ARCHITECTURE}, path)
    return path


def as_pairs(opts: Mapping[str, object]) -> list[str]:
    """KEY VALUE pairs as on a command line."""
    return [part for key, value in opts.items() for part in (key, str(value))]


def tiny_opts(clip: Path, **overrides: object) -> list[str]:
    """KEY VALUE pairs for a small model and a short training; overrides with ``__`` for dots."""
    opts: dict[str, object] = {
        **SMALL_MODEL,
        "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME": clip,
        # one text a word, for hundreds of words
        "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES": "predefined",
        "INPUT.MIN_SIZE_TRAIN": [32, 40],
        "INPUT.MIN_SIZE_TEST": 32,
        "INPUT.CROP.SIZE": [32, 32],
        "INPUT.SIZE_DIVISIBILITY": 32,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.BASE_LR": 0.001,
        "SOLVER.WARMUP_ITERS": 2,
        "SOLVER.MAX_ITER": 2,
        "TEST.EVAL_PERIOD": 0,
        "DATALOADER.NUM_WORKERS": 0,
        "SEED": 3,
    }
    return as_pairs(opts | {key.replace("__", "."): value for key, value in overrides.items()})


def train_command(clip: Path, output: Path, *options: str, **overrides: object) -> list[str]:
    """Arguments of ``ovseg train`` for a small model in ``output``; overrides as :func:`tiny_opts`.

    The data sets are those of :func:`tiny_world` under its default prefix.
    """
    settings: dict[str, object] = {
        "DATASETS__TRAIN": "tiny_train", "DATASETS__TEST": "tiny_dev", "OUTPUT_DIR": output,
    }  # fmt: skip
    return [*options, "--config-file", str(SWIN), *tiny_opts(clip, **(settings | overrides))]


def write_model(folder: Path) -> list[str]:
    """A small model with random weights in a folder: the KEY VALUE pairs that name it."""
    opts = tiny_opts(write_clip(folder / "clip.pt"))
    torch.manual_seed(0)
    torch.save({"model": build_model(setup_cfg(SWIN, opts)).state_dict()}, folder / "weights.pth")
    return [*opts, "MODEL.WEIGHTS", str(folder / "weights.pth")]


def write_split(root: Path, split: str, num_classes: int, count: int = 5, size: int = 48) -> None:
    """Images of two coloured halves and their label maps, as ``stickerscenes_<split>``."""
    rng = np.random.default_rng(len(split))
    for folder in ("images", "annotations"):
        (root / "stickerscenes" / folder / split).mkdir(parents=True)
    for index in range(count):
        labels = np.empty((size, size + 8), dtype=np.uint8)
        edge = int(rng.integers(10, size - 10))
        labels[:edge], labels[edge:] = rng.integers(0, num_classes, 2)
        labels[:2] = 255
        image = np.stack([labels.astype(int) * k % 256 for k in (1, 37, 101)], axis=-1).astype(
            np.uint8
        )
        name = f"{split}/{index:03d}.png"
        Image.fromarray(image).save(root / "stickerscenes" / "images" / name)
        Image.fromarray(labels).save(root / "stickerscenes" / "annotations" / name)


@contextmanager
def tiny_world(root: Path, prefix: str = "tiny") -> Iterator[Path]:
    """Data sets ``tiny_train``, ``tiny_dev`` and ``tiny_test`` under ``root``, and its CLIP."""
    names = []
    for split in SPLITS:
        if split.name in {"stickerscenes_train", "stickerscenes_dev", "stickerscenes_test"}:
            kind = split.name.removeprefix("stickerscenes_")
            write_split(root, kind, num_classes=len(split.classes()))
            names.append(f"{prefix}_{kind}")
            register_split(replace(split, name=names[-1]), root)
    yield write_clip(root / "clip.pt")
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
