"""Hugging Face's CLIP files: the same features as open_clip's, from weights named their way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tiny_world import CLIP_ARCHITECTURE

from ovseg.errors import UserError
from ovseg.modeling.clip import build_clip, read_clip_file

# their config of the same architecture; what it leaves out is as in transformers
CONFIG: dict[str, Any] = {
    "projection_dim": 16,
    "text_config": {
        "hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 2,
        "num_hidden_layers": 2, "hidden_act": "quick_gelu",
    },
    "vision_config": {
        "hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2,
        "num_hidden_layers": 4, "image_size": 32, "patch_size": 8,
    },
}  # fmt: skip


def theirs(model: open_clip.CLIP) -> dict[str, torch.Tensor]:
    """The weights of an open_clip model under the names of transformers' ``CLIPModel``."""
    out = {
        "logit_scale": model.logit_scale,
        "text_projection.weight": model.text_projection.T,
        "visual_projection.weight": model.visual.proj.T,
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "text_model.embeddings.token_embedding.weight": model.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": model.positional_embedding,
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
        "vision_model.embeddings.class_embedding": model.visual.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": model.visual.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": model.visual.positional_embedding,
    }
    norms = {
        "text_model.final_layer_norm": model.ln_final,
        "vision_model.pre_layrnorm": model.visual.ln_pre,
        "vision_model.post_layernorm": model.visual.ln_post,
    }
    towers = {"text_model": model.transformer, "vision_model": model.visual.transformer}
    for tower, transformer in towers.items():
        for i, block in enumerate(transformer.resblocks):
            layer = f"{tower}.encoder.layers.{i}"
            norms |= {f"{layer}.layer_norm1": block.ln_1, f"{layer}.layer_norm2": block.ln_2}
            norms |= {f"{layer}.mlp.fc1": block.mlp.c_fc, f"{layer}.mlp.fc2": block.mlp.c_proj}
            norms[f"{layer}.self_attn.out_proj"] = block.attn.out_proj
            for kind in ("weight", "bias"):
                joined = getattr(block.attn, f"in_proj_{kind}").chunk(3)
                for name, part in zip("qkv", joined, strict=True):
                    out[f"{layer}.self_attn.{name}_proj.{kind}"] = part
    for name, module in norms.items():
        out |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    return {name: value.detach().clone() for name, value in out.items()}


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """No weight is zero or one, so that one in the wrong place shows."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(0.1 * noise)
    return model.eval()


@pytest.fixture(scope="module")
def plain() -> open_clip.CLIP:
    torch.manual_seed(0)
    return randomise(open_clip.CLIP(**CLIP_ARCHITECTURE))


@torch.no_grad()
def assert_same_features(path: Path, image: torch.Tensor, text: torch.Tensor, pixels, tokens):
    model = build_clip(str(path), "", 0).eval()
    torch.testing.assert_close(model.encode_image(pixels), image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encode_text(tokens), text, rtol=1e-4, atol=1e-5)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def tokens() -> torch.Tensor:
    return open_clip.tokenize(["a dog", "traffic light", "x"])


def save(weights: dict[str, torch.Tensor], path: Path, form: str) -> Path:
    if form == "model.safetensors":
        save_file({name: value.contiguous() for name, value in weights.items()}, path / form)
    elif form == "lightning.ckpt":
        content = {f"model.clip.{name}": value for name, value in weights.items()}
        torch.save({"state_dict": content, "pytorch-lightning_version": "2.0"}, path / form)
    else:
        torch.save(weights, path / form)
    return path / form


@pytest.mark.parametrize("form", ["pytorch_model.bin", "model.safetensors", "lightning.ckpt"])
@torch.no_grad()
def test_features_are_those_of_open_clip(form: str, plain, tmp_path: Path, pixels, tokens) -> None:
    path = save(theirs(plain), tmp_path, form)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    image, text = plain.encode_image(pixels), plain.encode_text(tokens)
    assert_same_features(path, image, text, pixels, tokens)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_the_config_beside_it_says_the_activation(act: str, plain, tmp_path: Path) -> None:
    path = save(theirs(plain), tmp_path, "pytorch_model.bin")
    config = {**CONFIG, **{
        part: {**CONFIG[part], "hidden_act": act} for part in ("text_config", "vision_config")
    }}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    model_cfg = read_clip_file(path)[1]
    assert model_cfg is not None
    assert model_cfg["quick_gelu"] == (act == "quick_gelu")
    expected = {**CLIP_ARCHITECTURE["vision_cfg"], "mlp_ratio": 4.0}
    assert model_cfg["vision_cfg"] == expected


def test_without_a_config_it_is_read_as_openais(plain, tmp_path: Path, caplog) -> None:
    path = save(theirs(plain), tmp_path, "pytorch_model.bin")
    weights, model_cfg = read_clip_file(path)
    assert model_cfg is None
    assert weights.keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(weights[name], value), name


def test_what_is_no_clip_model_is_named(plain, tmp_path: Path) -> None:
    weights = theirs(plain)
    path = save({**weights, "vision_model.head.probe": torch.ones(1)}, tmp_path, "a.bin")
    with pytest.raises(UserError, match=r"a\.bin.*vision_model\.head\.probe is none of its"):
        read_clip_file(path)
    del weights["text_model.encoder.layers.1.self_attn.k_proj.bias"]
    with pytest.raises(UserError, match=r"layers\.1\.self_attn\.k_proj\.bias.* is missing"):
        read_clip_file(save(weights, tmp_path, "a.bin"))
    vision = {name: value for name, value in weights.items() if name.startswith("visi")}
    with pytest.raises(UserError, match=r"holds no CLIP .*token_embedding\.weight is missing"):
        read_clip_file(save(vision, tmp_path, "a.bin"))
    for config in ("[1]", "{", '{"text_config": {"hidden_act": "relu"}}'):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(UserError, match=r"config\.json'"):
            read_clip_file(save(theirs(plain), tmp_path, "a.bin"))


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_a_model_that_transformers_saved(act: str, tmp_path: Path, pixels, tokens) -> None:
    """By their own class, where it is installed; it is too large to be installed for a test."""
    transformers = pytest.importorskip("transformers")
    parts = {part: {**CONFIG[part], "hidden_act": act} for part in ("text_config", "vision_config")}
    model = randomise(transformers.CLIPModel(transformers.CLIPConfig(**parts, projection_dim=16)))
    model.save_pretrained(tmp_path)
    out = model(input_ids=tokens, pixel_values=pixels)
    ours = build_clip(str(tmp_path / "model.safetensors"), "", 0).eval()
    for mine, their in (
        (ours.encode_image(pixels, normalize=True), out.image_embeds),
        (ours.encode_text(tokens, normalize=True), out.text_embeds),
        (ours.logit_scale, model.logit_scale),
    ):
        torch.testing.assert_close(mine, their, rtol=1e-4, atol=1e-5)
