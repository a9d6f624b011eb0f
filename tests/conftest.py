"""Models small enough to build in a moment, and the published implementation's inputs."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config

from ovseg import OVSeg, add_ovseg_config
from ovseg.modeling.clip import build_untrained_clip

ROOT = Path(__file__).resolve().parent.parent
PARITY = Path(__file__).parent / "data" / "parity"

# a CLIP whose input is not 224 pixels and whose vocabulary is the whole of CLIP's
CLIP_ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}

SMALL_SWIN = [
    "MODEL.BACKBONE.NAME", "D2SwinTransformer",
    "MODEL.SWIN.EMBED_DIM", "16",
    "MODEL.SWIN.DEPTHS", "[1, 2, 1, 1]",
    "MODEL.SWIN.NUM_HEADS", "[1, 2, 4, 4]",
    "MODEL.SWIN.WINDOW_SIZE", "4",
    "MODEL.SEM_SEG_HEAD.EMBEDDING_DIM", "16",
    "MODEL.SEM_SEG_HEAD.EMBED_HIDDEN_DIM", "32",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32",
    "MODEL.SEM_SEG_HEAD.MASK_DIM", "16",
    "MODEL.MASK_FORMER.HIDDEN_DIM", "32",
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "6",
    "MODEL.MASK_FORMER.NHEADS", "2",
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD", "32",
    "MODEL.MASK_FORMER.DEC_LAYERS", "2",
    "MODEL.WEIGHTS", "",
    "MODEL.DEVICE", "cpu",
]  # fmt: skip


def load_config(name: str, *opts: str) -> CfgNode:
    """A config of ``configs/`` with changes, the way users of the published code load one."""
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_ovseg_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs" / name))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *opts])
    return cfg


@pytest.fixture(scope="session")
def seeded() -> ModuleType:
    """Weights, images and masks on which the published implementation was run."""
    spec = importlib.util.spec_from_file_location("seeded", PARITY / "seeded.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def parity() -> Callable[[str], tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """How a case of the published implementation was made, and its answers."""

    def case(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        made = json.loads((PARITY / f"{name}.json").read_text())
        answers = PARITY / f"{name}.npz"
        return made, dict(np.load(answers)) if answers.exists() else {}

    return case


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of 32-pixel input as a training checkpoint that says its architecture."""
    torch.manual_seed(0)
    model = build_untrained_clip(CLIP_ARCHITECTURE, 3)
    path = tmp_path_factory.mktemp("clip") / "small.pt"
    torch.save({"state_dict": model.state_dict(), "model_cfg": CLIP_ARCHITECTURE}, path)
    return path


@pytest.fixture(scope="session")
def small_config(clip_file: Path) -> Callable[..., CfgNode]:
    """Makes configs of a small random OVSeg: ``small_config(*opts, base=...)``."""

    def make(*opts: str, base: str = "ovseg_swinB_vitL_bs32_120k.yaml") -> CfgNode:
        clip = ["MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", str(clip_file)]
        return load_config(base, *SMALL_SWIN, *clip, *opts)

    return make


@pytest.fixture(scope="session")
def small_model(small_config: Callable[..., CfgNode], seeded: ModuleType) -> Callable[..., OVSeg]:
    """Builds small models with seeded weights in evaluation mode; arguments as the config's."""

    def make(*opts: str, **kwargs: str) -> OVSeg:
        model = build_model(small_config(*opts, **kwargs))
        seeded.fill(model)
        return model.eval()

    return make
