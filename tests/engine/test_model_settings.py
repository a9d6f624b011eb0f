"""What an interrupted pass over a data set is compared by when it goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_world import SWIN

from ovseg.config import setup_cfg
from ovseg.engine.resumable import model_settings


@pytest.mark.parametrize("key", ["", "TEMPLATE_MAP", "SHARED_WEIGHTS", "BEST_TEMPLATES"])
def test_a_file_that_changed_is_another_model(key: str, tmp_path: Path) -> None:
    weights, other = tmp_path / "model.pth", tmp_path / "other.pt"
    weights.write_bytes(b"1")
    other.write_bytes(b"2")
    opts = ["MODEL.WEIGHTS", str(weights)]
    opts += [f"MODEL.CLIP_ADAPTER.{key}", str(other)] if key else []
    cfg = setup_cfg(SWIN, opts)
    before = model_settings(cfg)
    assert model_settings(cfg) == before
    changed = other if key else weights
    os.utime(changed, ns=(0, changed.stat().st_mtime_ns + 1000))
    assert model_settings(cfg) != before
