"""What an interrupted pass over a data set is compared by when it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from tiny_world import SWIN

from ovseg.config import setup_cfg
from ovseg.data.datasets import load_dataset
from ovseg.data.own.registration import register_custom
from ovseg.engine.resumable import _dataset_settings, model_settings
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


@pytest.mark.usefixtures("forget_data_sets")
@pytest.mark.parametrize(
    "change", [("classes", ["sofa | couch", "grass"]), ("ignore_value", 7)], ids=str
)
def test_other_class_names_or_ignored_values_are_another_pass(
    change: tuple[str, object], tmp_path: Path
) -> None:
    for kind in ("photos", "maps"):
        (tmp_path / kind).mkdir()
        Image.new("L", (48, 40)).save(tmp_path / kind / "0.png")
    key, value = change
    plain = {"images": "photos", "labels": "maps", "classes": ["sofa", "grass"]}
    told = []
    for name, content in (("one", plain), ("two", {**plain, key: value})):
        file = tmp_path / "own.yaml"
        file.write_text(yaml.safe_dump({"name": name, **content}))
        cfg = setup_cfg(SWIN, ["DATASETS.CUSTOM", f"{file},"])
        register_custom(cfg.DATASETS.CUSTOM)
        told.append(_dataset_settings(cfg, name, load_dataset(name)))
    assert told[0]["images"] == told[1]["images"]
    keys = {key for key in told[0] if told[0][key] != told[1][key]}
    expected = "classes" if key == "classes" else "ignored value"
    assert keys == {expected, "DATASETS.CUSTOM"}


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
