"""Swin: against torchvision's, which is another implementation of the same paper."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.swin_transformer import SwinTransformer

from ovseg.modeling.backbone import D2SwinTransformer

SETTINGS = {"embed_dim": 16, "depths": [2, 2, 2, 1], "num_heads": [1, 2, 4, 4]}
NAMES = {"mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3"}


@pytest.fixture
def pair():
    """Ours and torchvision's with the same weights."""
    torch.manual_seed(0)
    ours = D2SwinTransformer(window_size=4, drop_path_rate=0.0, **SETTINGS).eval()
    theirs = SwinTransformer(
        patch_size=[4, 4],
        window_size=[4, 4],
        embed_dim=16,
        depths=SETTINGS["depths"],
        num_heads=SETTINGS["num_heads"],
    ).eval()
    weights = {}
    for key, value in ours.state_dict().items():
        if key.startswith("patch_embed.proj"):
            key = key.replace("patch_embed.proj", "features.0.0")
        elif key.startswith("patch_embed.norm"):
            key = key.replace("patch_embed.norm", "features.0.2")
        elif key.startswith("layers."):
            _, stage, kind, *rest = key.split(".")
            index = 2 * int(stage) + (1 if kind == "blocks" else 2)
            key = ".".join(["features", str(index), *rest])
            for a, b in NAMES.items():
                key = key.replace(a, b)
            if key.endswith("relative_position_index"):
                value = value.flatten()
        elif key.startswith("norm3"):
            key = key.replace("norm3", "norm")
        else:
            continue  # torchvision normalises the last map alone
        weights[key] = value
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected
    assert missing == ["head.weight", "head.bias"]
    return ours, theirs


@pytest.mark.parametrize("size", [(128, 128), (160, 192), (141, 166)])
def test_equals_torchvision(pair, size):
    ours, theirs = pair
    x = torch.randn(2, 3, *size)
    # torchvision drops the edge that fills no patch; ours pads it as the official code does
    padded = torch.nn.functional.pad(x, (0, -size[1] % 4, 0, -size[0] % 4))
    with torch.no_grad():
        maps = ours(x)
        expected = theirs.norm(theirs.features(padded)).permute(0, 3, 1, 2)
    torch.testing.assert_close(maps["res5"], expected, rtol=1e-4, atol=1e-4)
    for name, shape in ours.output_shape().items():
        assert maps[name].shape[1] == shape.channels
        assert maps[name].shape[2] == -(-x.shape[2] // shape.stride)


def test_gradient_checkpointing_and_position_embedding():
    torch.manual_seed(0)
    model = D2SwinTransformer(
        window_size=4, drop_path_rate=0.0, ape=True, pretrain_img_size=64, **SETTINGS
    ).train()
    x = torch.randn(1, 3, 64, 96)
    plain = model(x)["res5"].sum()
    plain.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    model.use_checkpoint = True
    model(x)["res5"].sum().backward()
    again = [p.grad for p in model.parameters() if p.grad is not None]
    for a, b in zip(gradients, again, strict=True):
        torch.testing.assert_close(a, b)
