"""The exported checkpoint holds the same weights, and only these."""

from __future__ import annotations

import pytest
import torch
from conftest import ROOT
from detectron2.modeling import build_model
from safetensors.torch import load_file

from ovseg.config import setup_cfg
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.pretrained import resolve
from tools.export_checkpoint import main


def test_export_loads_again_in_half_the_size(small_model, small_config, tmp_path):
    model, cfg = small_model(), small_config()
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    sum(p.sum() for p in model.parameters() if p.requires_grad).backward()
    optimizer.step()
    OVSegCheckpointer(model, str(tmp_path), cfg=cfg, optimizer=optimizer).save("model_final")
    source, target = tmp_path / "model_final.pth", tmp_path / "small.pth"
    main([str(source), str(target)])
    assert target.stat().st_size < 0.55 * source.stat().st_size
    again = build_model(cfg)
    OVSegCheckpointer(again, cfg=cfg, trained=True).load(str(target))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=1e-3, atol=1e-4)


def test_wrong_files_are_named(tmp_path, capsys):
    for content in (None, b"noise"):
        source = tmp_path / "source.pth"
        if content:
            source.write_bytes(content)
        with pytest.raises(SystemExit, match="2"):
            main([str(source), str(tmp_path / "out.pth")])
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert "source.pth" in said
        assert not (tmp_path / "out.pth").exists()


def test_a_folder_for_the_hub(small_model, small_config, tmp_path, capsys):
    model, cfg = small_model(), small_config()
    OVSegCheckpointer(model, str(tmp_path), cfg=cfg).save("model_final")
    source, folder = tmp_path / "model_final.pth", tmp_path / "folder"
    with pytest.raises(SystemExit, match="2"):
        main([str(source), "--safetensors", str(folder)])
    assert "there is no config.yaml beside it; give its config" in capsys.readouterr().err
    assert not folder.exists()
    (tmp_path / "config.yaml").write_text(cfg.dump())  # as train_net.py does
    main([str(source), "--safetensors", str(folder), "--precision", "fp32"])
    found = resolve(folder)
    again_cfg = setup_cfg(found.config, [*found.opts, "MODEL.DEVICE", "cpu"])
    again = build_model(again_cfg)
    OVSegCheckpointer(again, cfg=again_cfg, trained=True).load(again_cfg.MODEL.WEIGHTS)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_a_released_file_needs_no_config(tmp_path):
    main([str(ROOT / "resources" / "ovseg_tiny.pth"), "--safetensors", str(tmp_path / "tiny")])
    cfg = setup_cfg(resolve(tmp_path / "tiny").config)
    released = setup_cfg(ROOT / "configs" / "ovseg_tiny.yaml")
    assert cfg.MODEL.SWIN == released.MODEL.SWIN
    assert cfg.MODEL.META_ARCHITECTURE == "OVSeg"


def test_fp32_of_a_file_in_half_precision(tmp_path):
    source = ROOT / "resources" / "ovseg_tiny.pth"
    main([str(source), str(tmp_path / "x.pth"), "--safetensors", str(tmp_path / "x"),
          "--precision", "fp32"])  # fmt: skip
    half = torch.load(source, weights_only=True)["model"]
    assert torch.float16 in {value.dtype for value in half.values()}
    written = torch.load(tmp_path / "x.pth", weights_only=True)["model"]
    for weights in (written, load_file(tmp_path / "x" / "model.safetensors")):
        for name, value in half.items():
            kept = value.float() if value.is_floating_point() else value
            assert weights[name].dtype == kept.dtype
            assert torch.equal(weights[name], kept)


def test_what_to_write_has_to_be_said(tmp_path, capsys):
    for arguments in (["a.pth"], ["a.pth", "b.pth", "--config-file", "c.yaml"]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert "--safetensors DIR" in capsys.readouterr().err
