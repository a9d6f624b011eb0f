"""What an interrupted pass over a data set is compared by when it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_world import SWIN

from ovseg.config import setup_cfg
from ovseg.engine.resumable import model_settings
from ovseg.labelling.work import checkpoint_digest
from ovseg.released import RELEASED, Released
from ovseg.utils.digests import file_digest


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


def test_weights_of_a_name_are_told_apart_by_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "tiny.pth"
    monkeypatch.setattr(Released, "path", weights)
    cfg = setup_cfg(SWIN, ["MODEL.WEIGHTS", "ovseg://tiny"])
    told = []
    for content in (b"1", b"2"):
        weights.write_bytes(content)
        os.utime(weights, ns=(0, 1000 * len(told)))
        told.append(model_settings(cfg)["weights"])
        assert checkpoint_digest(cfg) == file_digest(weights)[:16]
    assert told == [[[1, 0]], [[1, 1000]]]


def test_a_name_is_known_before_there_is_a_predictor() -> None:
    program = (
        "from ovseg.config import setup_cfg\n"
        "from ovseg.engine.resumable import model_settings\n"
        f"cfg = setup_cfg({str(SWIN)!r}, ['MODEL.WEIGHTS', 'ovseg://tiny'])\n"
        "print(model_settings(cfg)['weights'][0][0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(done.stdout) == RELEASED["tiny"].path.stat().st_size
