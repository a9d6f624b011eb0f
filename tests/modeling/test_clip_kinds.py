"""Every CLIP of the table in docs/clips.md, small and random, against open_clip's own forward."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from conftest import ROOT
from open_clip.model import CustomTextCLIP
from torchvision.transforms.functional import normalize

from ovseg.modeling.clip import (
    ClipAdapter,
    architecture_of_name,
    build_untrained_clip,
    load_clip_weights,
    read_clip_file,
)
from ovseg.modeling.clip.construction import takes_mask_prompts

TEXTS = ["a photo of a zebra.", "sky", "a very long text " * 5]
WIDTH = 32


def rows() -> list[dict[str, str]]:
    lines = (ROOT / "docs/clips.md").read_text("utf-8").splitlines()
    cells = [re.split(r" *\| *", line.strip("| ")) for line in lines if line.startswith("|")]
    return [dict(zip(cells[0], (cell.strip("`") for cell in row), strict=True))
            for row in cells[2:]]  # fmt: skip


ROWS = rows()


def row_ids(row: dict[str, str]) -> str:
    return f"{row['CLIP']}-{row['weights']}"


@pytest.fixture
def small_timm(monkeypatch):
    """timm's networks by their real names, narrow and shallow."""
    real = timm.create_model
    plain = {"embed_dim": WIDTH, "depth": 2, "num_heads": 2}
    sizes = {
        "vit_base_mci": {"depth": 1},  # its stem goes with its width
        "fastvit": {"layers": (1, 1, 1, 1)},
        "vitamin": {},
        "eva02": plain,
        "vit": plain,
    }

    def create(name: str, **options: Any) -> torch.nn.Module:
        smaller = next(size for prefix, size in sizes.items() if name.startswith(prefix))
        return real(name, **{**options, **smaller})

    monkeypatch.setattr(timm, "create_model", create)


def shrink(architecture: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same architecture with small towers."""
    small = copy.deepcopy(architecture)
    vision, text = small["vision_cfg"], small["text_cfg"]
    if "timm_model_name" not in vision:
        vision |= {"width": WIDTH, "layers": 2, "head_width": 16}
        vision |= {"attn_pooler_heads": 2} if "attn_pooler_heads" in vision else {}
    narrow = vision.get("timm_model_name", "vit").startswith(("vit_", "eva02"))
    small["embed_dim"] = WIDTH if narrow and "mci" not in str(vision) else 64
    if "hf_model_name" in text:
        config = {"model_type": "roberta", "hidden_size": WIDTH, "num_hidden_layers": 2,
                  "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100}  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        text["hf_model_name"] = str(folder)
    else:
        text |= {"width": WIDTH, "heads": 2, "layers": 2}
    return small


def reference(architecture: dict[str, Any]) -> torch.nn.Module:
    """open_clip's own class."""
    config = copy.deepcopy(architecture)
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    config.pop("preprocess_cfg", None)
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    kind = open_clip.CLIP
    if custom:
        kind = open_clip.CoCa if "multimodal_cfg" in config else CustomTextCLIP
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {"width": WIDTH, "heads": 2, "layers": 1}
    return kind(**config).eval()


def filled_with_noise(model: torch.nn.Module) -> torch.nn.Module:
    """Weights that are zero or one at first must tell too."""
    generator = torch.Generator().manual_seed(5)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and "running_var" not in name:
            if not (value.abs() < 1e3).all():  # CoCa's projection is memory that nobody has set
                value.zero_()
            value += 0.02 * torch.randn(value.shape, generator=generator)
    return model


def random_tokens(texts: list[str], length: int, vocabulary: int = 90) -> torch.Tensor:
    """Stands in for a tokenizer that would have to be fetched: ids, padded by 1."""
    tokens = torch.ones(len(texts), length, dtype=torch.int64)
    for row, text in zip(tokens, texts, strict=True):
        ids = torch.tensor([ord(letter) % vocabulary + 2 for letter in text][: length - 1])
        row[: len(ids)] = ids
        row[len(ids)] = 2
    return tokens


@pytest.mark.parametrize("row", ROWS, ids=row_ids)
@torch.no_grad()
def test_features_equal_open_clips(row, small_timm, tmp_path, monkeypatch):
    if row["needs transformers"] == "text tower":
        pytest.importorskip("transformers")
    monkeypatch.setattr("ovseg.modeling.clip.tokenizer.find_spec", lambda _: True)
    full = architecture_of_name(row["CLIP"], row["weights"])
    architecture = shrink(full, tmp_path)
    theirs = filled_with_noise(reference(architecture))
    model = build_untrained_clip(architecture, 0).eval()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "clip.pt")
    load_clip_weights(model, read_clip_file(tmp_path / "clip.pt")[0], "file")
    tokenize = model.tokenizer
    length = tokenize.context_length
    if row["needs transformers"] == "no":
        tokens = open_clip.get_tokenizer(row["CLIP"].replace("/", "-"))(TEXTS)
    else:
        tokens = random_tokens(TEXTS, length)
        model.tokenizer = lambda texts: random_tokens(texts, length)
        model.tokenizer.name = tokenize.name
    adapter = ClipAdapter(model, ("{}",), mask_prompts=False)
    height, width = adapter.input_size
    images = 255 * torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    features = adapter.image_features(images, torch.ones(2, 1, height, width))
    tag = open_clip.get_pretrained_cfg(row["CLIP"].replace("/", "-"), row["weights"])
    wanted = theirs.encode_image(normalize(images / 255, tag["mean"], tag["std"]))
    close(features, wanted, unit="multimodal_cfg" in architecture)
    ours = adapter.text_features(TEXTS)[:-1]
    torch.testing.assert_close(ours, unit(theirs.encode_text(tokens)), atol=1e-5, rtol=0)
    # the features are those of the texts, and not of anything
    assert (ours[0] - ours[1]).norm() > 1e-3
    # what the table says
    assert f"{height}" == row["input"]
    fill = adapter.pixel_mean.flatten() / 255
    assert ", ".join(f"{value:.3f}" for value in fill.tolist()) == row["pixel mean"]
    assert f"{length}" == row["context"]
    assert f"{full['embed_dim']}" == row["width"]
    assert ("yes" if takes_mask_prompts(full) else "no") == row["mask prompts"]
    text = full["text_cfg"]
    needs = "text tower" if "hf_model_name" in text else "tokenizer" if tokenize.name else "no"
    assert needs == row["needs transformers"]


def unit(features: torch.Tensor) -> torch.Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def close(ours: torch.Tensor, theirs: torch.Tensor, *, unit: bool) -> None:
    ours = torch.nn.functional.normalize(ours, dim=-1) if unit else ours  # CoCa's are of length 1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
