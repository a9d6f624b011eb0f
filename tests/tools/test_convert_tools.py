"""Converters: the weights of others, read by detectron2's checkpointer into its own backbones."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_resnet_backbone
from detectron2.projects.deeplab import add_deeplab_config, build_resnet_deeplab_backbone
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.swin_transformer import SwinTransformer

from ovseg.engine.backbone_conversion import convert_resnet, convert_swin, resnet_name
from ovseg.errors import UserError, cli_errors
from ovseg.modeling.backbone.swin import D2SwinTransformer
from ovseg.utils.write_checkpoint import write_detectron2_pickle

ROOT = Path(__file__).resolve().parents[2]
SWIN_TOOL = "convert-pretrained-swin-model-to-d2.py"
RESNET_TOOL = "convert-torchvision-to-d2.py"


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        name[:-3].replace("-", "_"), ROOT / "tools" / name
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_tool(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / name), *map(str, args)]
    # deprecations inside the libraries are not the tool's lines
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def randomise(model: nn.Module, seed: int) -> None:
    """Random norms too, so that a norm in the wrong place shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.0, generator=generator)


def load(backbone: nn.Module, path: Path) -> Any:
    """Load as a training does; nothing of the file may be left over."""
    holder = nn.Module()
    holder.backbone = backbone
    checkpointer = DetectionCheckpointer(holder)
    result = checkpointer._load_model(checkpointer._load_file(str(path)))
    assert result.unexpected_keys == []
    assert result.incorrect_shapes == []
    return result


def test_torchvision_resnet_gives_the_same_features(tmp_path: Path) -> None:
    theirs = resnet50(weights=None).eval()
    randomise(theirs, seed=0)
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    done = run_tool(RESNET_TOOL, tmp_path / "resnet50.pth", tmp_path / "R-50.pkl")
    assert done.returncode == 0, done.stderr
    assert "265 weights, 55 left out" in done.stderr  # the classifier, and counters of the norms

    cfg = get_cfg()
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    ours = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    assert load(ours, tmp_path / "R-50.pkl").missing_keys == []

    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = ours(x)
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for n in range(1, 5):
            y = getattr(theirs, f"layer{n}")(y)
            torch.testing.assert_close(features[f"res{n + 1}"], y, rtol=1e-4, atol=1e-4)


def test_resnet_with_three_stem_convolutions_fits_r101c() -> None:
    cfg = get_cfg()
    add_deeplab_config(cfg)
    cfg.MODEL.RESNETS.DEPTH = 50
    cfg.MODEL.RESNETS.STEM_TYPE = "deeplab"
    model = build_resnet_deeplab_backbone(cfg, ShapeSpec(channels=3))
    kinds = ("weight", "bias", "running_mean", "running_var")
    stem = {f"conv{n}.weight" for n in (1, 2, 3)} | {f"bn{n}.{k}" for n in (1, 2, 3) for k in kinds}
    expected = {name for name in model.state_dict() if name.startswith("stem.")}
    assert {resnet_name(name) for name in stem} == expected
    assert resnet_name("layer3.5.downsample.1.running_var") == "res4.5.shortcut.norm.running_var"
    assert resnet_name("fc.bias") is None


def official_names(theirs: SwinTransformer) -> dict[str, Tensor]:
    """A torchvision Swin as an official checkpoint would hold it, with all that it adds."""
    weights = {}
    for name, value in theirs.state_dict().items():
        if name.endswith("relative_position_index"):
            side = round(value.numel() ** 0.5)
            value = value.view(side, side)
        name = re.sub(r"^features\.0\.0\.", "patch_embed.proj.", name)
        name = re.sub(r"^features\.0\.2\.", "patch_embed.norm.", name)
        # odd places hold the blocks of a stage, even ones the merging after it
        name = re.sub(
            r"^features\.(\d)\.(\d)\.", lambda m: f"layers.{int(m[1]) // 2}.blocks.{m[2]}.", name
        )
        name = re.sub(
            r"^features\.(\d)\.", lambda m: f"layers.{int(m[1]) // 2 - 1}.downsample.", name
        )
        name = name.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
        weights[name] = value
    weights["layers.0.blocks.1.attn_mask"] = torch.zeros(16, 16, 16)
    return weights


def test_official_swin_gives_the_same_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = SwinTransformer([4, 4], 16, [2, 2, 2], [2, 4, 8], [4, 4], num_classes=5).eval()
    for name, parameter in theirs.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.0)
    torch.save({"model": official_names(theirs)}, tmp_path / "swin.pth")
    done = run_tool(SWIN_TOOL, tmp_path / "swin.pth", tmp_path / "swin.pkl")
    assert done.returncode == 0, done.stderr
    assert "5 left out" in done.stderr  # weight and bias of norm and head, and the mask

    ours = D2SwinTransformer(
        pretrain_img_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[2, 2, 2],
        num_heads=[2, 4, 8],
        window_size=4,
        out_features=["res2", "res3", "res4"],
    ).eval()
    missing = load(ours, tmp_path / "swin.pkl").missing_keys
    # the norms of a backbone's outputs are no part of a classifier
    assert sorted(missing) == sorted(
        f"backbone.norm{i}.{kind}" for i in range(3) for kind in ("weight", "bias")
    )
    # every map is larger than a window: on smaller ones torchvision leaves the shift out
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = ours(x)
        y = theirs.features[0](x)
        for i in range(3):
            y = theirs.features[2 * i + 1](y)
            expected = nn.functional.layer_norm(y, y.shape[-1:]).permute(0, 3, 1, 2)
            torch.testing.assert_close(features[f"res{i + 2}"], expected, rtol=1e-4, atol=1e-4)
            if i < 2:
                y = theirs.features[2 * i + 2](y)


def test_not_a_swin_is_refused() -> None:
    with pytest.raises(UserError, match="no Swin"):
        convert_swin({"patch_embed.proj.weight": torch.zeros(1)})


def test_not_a_resnet_is_refused() -> None:
    with pytest.raises(UserError, match=r"no ResNet.*layer4"):
        convert_resnet({"conv1.weight": torch.zeros(1)})


@pytest.mark.parametrize("tool", [SWIN_TOOL, RESNET_TOOL])
def test_errors_are_one_line(tool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no checkpoint")
    other = tmp_path / "other.pth"
    torch.save({"model": {"weight": torch.zeros(1)}}, other)
    main = load_tool(tool).main
    for source in (tmp_path / "missing.pth", broken, other):
        with pytest.raises(SystemExit) as ended, cli_errors():
            main([str(source), str(tmp_path / "out.pkl")])
        assert ended.value.code == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("\n") == 1
    assert not (tmp_path / "out.pkl").exists()


def test_output_needs_the_suffix_that_detectron2_knows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"out\.pth.*\.pkl"):
        write_detectron2_pickle(tmp_path / "out.pth", {}, "nobody")
