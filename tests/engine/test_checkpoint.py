"""Checkpoints in all the forms users have, and those that do not fit."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PARITY, load_config
from detectron2.modeling import build_model
from safetensors.torch import save_file
from torch import nn

from ovseg import UserError
from ovseg.engine import checkpoint as module
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.modeling.clip import OVSEG_PREFIX, build_untrained_clip


@pytest.fixture
def small(small_config):
    """A small model and its config."""
    cfg = small_config()
    return build_model(cfg), cfg


def released(model: nn.Module, path: Path, **change: torch.Tensor | None) -> str:
    """Write a checkpoint of the released format; None takes a key out."""
    weights = {key: value + 1 for key, value in model.state_dict().items()}
    for key, value in change.items():
        key = key.replace("__", ".")
        if value is None:
            del weights[key]
        else:
            weights[key] = value
    torch.save({"model": weights}, path)
    return str(path)


def test_manifest_loads_without_missing_or_unexpected_key(tmp_path, monkeypatch, caplog):
    manifest = json.loads(
        (PARITY / "checkpoint_manifest_ovseg_R101c_vitB_bs32_120k.json").read_text()
    )
    # expanded ones: right shapes in a small file
    weights = {key: torch.ones(()).expand(shape) for key, shape in manifest.items()}
    torch.save({"model": weights}, tmp_path / "released.pth")
    cfg = load_config("ovseg_R101c_vitB_bs32_120k.yaml")
    model = build_model(cfg)
    monkeypatch.setattr(module, "find_pretrained", lambda *_: pytest.fail("asked for a download"))
    checkpointer = OVSegCheckpointer(model, cfg=cfg, trained=True)
    with caplog.at_level(logging.WARNING):
        checkpointer.load(str(tmp_path / "released.pth"))
    assert not list(checkpointer._missing)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert all((value == 1).all() for value in model.state_dict().values())


def test_round_trip_and_resume(small, small_config, tmp_path):
    model, cfg = small
    optimizer = torch.optim.AdamW(model.parameters())
    OVSegCheckpointer(model, str(tmp_path), cfg=cfg, optimizer=optimizer).save("m", iteration=7)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "m.pth"]
    other = build_model(cfg)
    with torch.no_grad():
        other.sem_seg_head.predictor.query_embed.weight.zero_()
    checkpointer = OVSegCheckpointer(other, str(tmp_path), cfg=cfg)
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 7
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


@pytest.mark.parametrize("form", ["safetensors", "lightning", "compiled", "parallel", "numpy"])
def test_a_checkpoint_of_another_form_is_the_same_model(small, small_config, tmp_path, form):
    model, cfg = small
    weights, path = model.state_dict(), tmp_path / "m.pth"
    if form == "safetensors":
        path = tmp_path / "m.safetensors"
        save_file({key: value.contiguous() for key, value in weights.items()}, path)
    else:
        content = {
            "lightning": {"state_dict": {f"model.{k}": v for k, v in weights.items()}},
            "compiled": {"model": {f"_orig_mod.{k}": v for k, v in weights.items()}},
            "parallel": {"module._orig_mod." + k: v for k, v in weights.items()},
            "numpy": {"model": weights, "optimizer": {"lr": np.float64(0.1)}},
        }[form]
        torch.save(content, path)
    other = build_model(cfg)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    OVSegCheckpointer(other, cfg=cfg, trained=True).load(str(path))
    for key, value in weights.items():
        assert torch.equal(value, other.state_dict()[key])


def test_interrupted_save_keeps_the_old_file(small, tmp_path, monkeypatch):
    model, cfg = small
    checkpointer = OVSegCheckpointer(model, str(tmp_path), cfg=cfg)
    checkpointer.save("m")
    before = (tmp_path / "m.pth").read_bytes()

    def full_disk(_, file):
        Path(file).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        checkpointer.save("m")
    assert (tmp_path / "m.pth").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "m.pth"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sem_seg_head__predictor__query_embed__weight": None}, "query_embed.weight is missing"),
        ({"sem_seg_head__more": torch.zeros(1)}, "sem_seg_head.more is left over"),
        ({"backbone__norm0__bias": torch.zeros(3)}, r"norm0.bias is \(3,\), wanted \(16,\)"),
    ],
)
def test_checkpoint_of_another_model_is_refused(small, tmp_path, change, message):
    model, cfg = small
    path = released(model, tmp_path / "m.pth", **change)
    with pytest.raises(UserError, match=message):
        OVSegCheckpointer(model, cfg=cfg).load(path)


def test_another_number_of_training_classes_is_fine(small, tmp_path):
    model, cfg = small
    path = released(model, tmp_path / "m.pth", criterion__empty_weight=torch.ones(5))
    OVSegCheckpointer(model, cfg=cfg, trained=True).load(path)
    assert model.criterion.empty_weight.shape == (172,)


def test_files_that_are_no_checkpoint(small, tmp_path):
    model, cfg = small
    load = OVSegCheckpointer(model, cfg=cfg).load
    with pytest.raises(UserError, match="no such file"):
        load(str(tmp_path / "none.pth"))
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(UserError, match="can be read"):
        load(str(tmp_path / "noise.pth"))
    torch.save({"model": {"other.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="no weight of this model"):
        load(str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.zeros(2), 3, {"model": None}, {"model": {"sem_seg_head.a": "x"}}, {1: 2}],
    ids=["list", "tensor", "number", "nothing", "text", "numbers"],
)
def test_files_without_a_table_of_weights(small, tmp_path, content):
    model, cfg = small
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"odd\.pth.*no table of names and tensors"):
        OVSegCheckpointer(model, cfg=cfg).load(str(tmp_path / "odd.pth"))


def test_half_a_clip_is_refused(small, tmp_path):
    model, cfg = small
    name = OVSEG_PREFIX + "transformer.resblocks.0.ln_1.weight"
    path = released(model, tmp_path / "m.pth", **{name: None})
    with pytest.raises(UserError, match=r"ln_1\.weight is missing"):
        OVSegCheckpointer(model, cfg=cfg, trained=True).load(path)


@pytest.mark.parametrize(
    "held",
    [None, torch.zeros(3, 16, 32), torch.ones(2, 16, 32)],
    ids=["none", "untrained", "another depth"],
)
def test_untrained_mask_prompts_are_not_evaluated(small, small_config, tmp_path, held):
    model, cfg = small
    path = released(model, tmp_path / "m.pth", **{OVSEG_PREFIX + "visual.mask_embedding": held})
    with pytest.raises(UserError, match="no trained mask prompts of depth 3"):
        OVSegCheckpointer(model, cfg=cfg, trained=True).load(path)
    without = small_config("MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD", "False")
    OVSegCheckpointer(build_model(without), cfg=without, trained=True).load(path)


class _Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_files_that_would_run_code_are_refused(small, tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"evil{suffix}"
    with path.open("wb") as file:
        if suffix == ".pkl":
            pickle.dump({"model": _Evil()}, file)
        else:
            torch.save({"model": _Evil()}, file)
    with pytest.raises(UserError, match="can be read"):
        OVSegCheckpointer(small[0], cfg=small[1]).load(str(path))
    assert not (tmp_path / "evil").exists()


def test_backbone_pkl_of_detectron2(small, tmp_path):
    model, cfg = small
    weights = OrderedDict(
        (key.removeprefix("backbone."), np.full(value.shape, 0.5, np.float32))
        for key, value in model.state_dict().items()
        if key.startswith("backbone.") and value.is_floating_point()
    )
    content = {"model": weights, "__author__": "someone", "matching_heuristics": True}
    (tmp_path / "swin.pkl").write_bytes(pickle.dumps(content))
    before = model.sem_seg_head.predictor.query_embed.weight.clone()
    OVSegCheckpointer(model, cfg=cfg).load(str(tmp_path / "swin.pkl"))
    assert all((p == 0.5).all() for p in model.backbone.parameters())
    assert torch.equal(before, model.sem_seg_head.predictor.query_embed.weight)
    with pytest.raises(UserError, match="only a backbone"):
        OVSegCheckpointer(model, cfg=cfg, trained=True).load(str(tmp_path / "swin.pkl"))


def test_clip_is_completed_only_when_the_file_lacks_it(small_config, tmp_path, monkeypatch):
    from tiny_world import CLIP_ARCHITECTURE

    monkeypatch.setattr(
        "ovseg.modeling.clip.architecture_of_name",
        lambda *_: CLIP_ARCHITECTURE,
    )
    name = "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME"
    cfg = small_config(name, "some-clip")
    fetched = build_untrained_clip(CLIP_ARCHITECTURE, 0).state_dict()
    torch.save(fetched, tmp_path / "fetched.pt")
    asked = []

    def fetch(*args):
        asked.append(args)
        return tmp_path / "fetched.pt"

    monkeypatch.setattr(module, "find_pretrained", fetch)
    model = build_model(cfg)
    full = released(model, tmp_path / "full.pth")
    OVSegCheckpointer(model, cfg=cfg).load(full)
    assert not asked
    without = {k: None for k in model.state_dict() if k.startswith(OVSEG_PREFIX)}
    without = {k.replace(".", "__"): v for k, v in without.items()}
    OVSegCheckpointer(model, cfg=cfg).load(released(model, tmp_path / "bare.pth", **without))
    assert set(asked) == {("some-clip", "openai")}
    for key, value in fetched.items():
        assert torch.equal(model.clip_adapter.clip_model.state_dict()[key], value)
    asked.clear()
    nothing_wanted = small_config(name, "some-clip", "MODEL.CLIP_ADAPTER.CLIP_PRETRAINED", "")
    OVSegCheckpointer(model, cfg=nothing_wanted).load("")
    assert not asked
    OVSegCheckpointer(model, cfg=cfg).load("")
    assert asked
