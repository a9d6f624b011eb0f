"""QuickGELU or GELU: one rule for every way in, and it is logged."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import open_clip
import pytest
import torch
from tiny_world import CLIP_ARCHITECTURE

from ovseg.modeling.clip import architecture_of_name, build_clip, build_untrained_clip

GELU = {**CLIP_ARCHITECTURE, "quick_gelu": False}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A state dict that says nothing of its model, as many fine-tunes are."""
    path = tmp_path / "fine-tuned.pt"
    torch.save(build_untrained_clip(CLIP_ARCHITECTURE, 0).state_dict(), path)
    return path


def quick(name: str, pretrained: object = "") -> bool:
    return bool(architecture_of_name(name, str(pretrained))["quick_gelu"])


@pytest.mark.parametrize("name", ["ViT-B/16", "ViT-B-16", "ViT-L/14", "ViT-L-14"])
def test_a_fine_tune_of_openais_keeps_its_activation(name: str, weights: Path, caplog) -> None:
    """Both forms of a name mean the same."""
    with caplog.at_level(logging.INFO):
        assert quick(name, weights)
        assert quick(name)
    assert "QuickGELU" in caplog.text
    # guessed by the form that open_clip's other models have too
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert bool(warned) == ("-" in name[4:])
    if warned:
        assert f"give the name as {name}-gelu" in warned[0].getMessage()


def test_the_end_of_a_name_decides_first(weights: Path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        assert not quick("ViT-B-16-gelu", weights)
        assert not quick("ViT-B/16-gelu", "openai")
        assert quick("ViT-B-16-quickgelu", "laion2b_s34b_b88k")
        # of a model that open_clip does not have in this form
        assert quick("ViT-g-14-quickgelu")
    assert caplog.text.count("the end of the name") == 4
    known = open_clip.get_model_config("ViT-B-16")
    assert architecture_of_name("ViT-B-16-gelu")["vision_cfg"] == known["vision_cfg"]


@pytest.mark.parametrize("architecture", [CLIP_ARCHITECTURE, GELU])
def test_the_files_own_word_goes_before_names(architecture, weights: Path, caplog) -> None:
    content = {"state_dict": torch.load(weights), "model_cfg": architecture}
    torch.save(content, weights)
    with caplog.at_level(logging.INFO):
        for name in ("ViT-B/16", "ViT-B-16", "ViT-H-14"):
            assert quick(name, weights) == architecture["quick_gelu"]
    assert caplog.text.count(f"the model_cfg of {weights}") == 3
    block = build_clip(str(weights), "", 0).visual.transformer.resblocks[0]
    assert (type(block.mlp.gelu).__name__ == "QuickGELU") == architecture["quick_gelu"]


def test_open_clips_config_beside_its_file(weights: Path) -> None:
    path = weights.rename(weights.with_name("open_clip_pytorch_model.bin"))
    assert quick("ViT-B-16", path)
    (weights.parent / "open_clip_config.json").write_text(json.dumps({"model_cfg": GELU}))
    assert not quick("ViT-B-16", path)


def test_tags_and_other_architectures_are_as_open_clip_has_them(weights: Path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        assert quick("ViT-B-16", "openai")
        assert not quick("ViT-B-16", "laion2b_s34b_b88k")
        assert quick("ViT-B-16", "metaclip_400m")
        assert not quick("ViT-H-14", weights)
        assert quick("ViT-H-14-quickgelu", weights)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert len(caplog.records) == 5


def test_weights_that_cannot_be_read_are_left_to_the_loading(tmp_path: Path) -> None:
    """MODEL.WEIGHTS may carry CLIP, and this file never be needed."""
    (tmp_path / "noise.pt").write_bytes(b"noise")
    assert quick("ViT-B-16", tmp_path / "noise.pt")
