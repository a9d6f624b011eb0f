"""Crops without background patches, against one crop after the other."""

from __future__ import annotations

import pytest
import torch
from tiny_world import CLIP_ARCHITECTURE

from open_clip_training.adaptation.options import parse_arguments
from ovseg import UserError
from ovseg.config import check_config
from ovseg.modeling.clip import MaskPromptedViT, build_untrained_clip, foreground_features

DROP = ("MODEL.CLIP_ADAPTER.BACKGROUND", "drop", "MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD", "False")


@pytest.fixture(scope="module")
def visual() -> MaskPromptedViT:
    torch.manual_seed(0)
    return build_untrained_clip(CLIP_ARCHITECTURE, 0).eval().visual


def one_by_one(visual: MaskPromptedViT, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """A sequence of just the foreground patches through open_clip's own blocks."""
    features = []
    for image, mask in zip(images, masks, strict=True):
        patches = visual.conv1(image[None])[0].flatten(1).T
        kept = [
            patch
            for patch in range(16)
            if (mask[0, patch // 4 * 8 :, patch % 4 * 8 :][:8, :8] > 0).any()
        ]
        x = patches[kept] + visual.positional_embedding[1:][kept]
        x = torch.cat([(visual.class_embedding + visual.positional_embedding[0])[None], x])
        x = visual.ln_pre(x)[None]
        for block in visual.transformer.resblocks:
            x = block(x)
        features.append((visual.ln_post(x[:, 0]) @ visual.proj)[0])
    return torch.stack(features)


@torch.no_grad()
def test_equals_each_crop_by_itself(visual) -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(19, 3, 32, 32, generator=generator)
    masks = torch.zeros(19, 1, 32, 32)
    for row in range(19):  # from one pixel to everything
        masks[row].view(-1)[torch.randperm(1024, generator=generator)[: row**2 + 1]] = 1
    masks[18] = 1
    found = foreground_features(visual, images, masks)
    torch.testing.assert_close(found, one_by_one(visual, images, masks), rtol=1e-4, atol=1e-5)
    # of a crop that is all foreground nothing is left out
    torch.testing.assert_close(found[18], visual(images[18:])[0], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_model_leaves_background_out(small_model, seeded) -> None:
    model, whole = small_model(*DROP), small_model(*DROP[2:])
    inputs = {"image": seeded.image(64, 96, 1), "class_names": ["wall", "sky"]}
    dropped, kept = model.encode([inputs])[0].crops, whole.encode([inputs])[0].crops
    assert dropped.features.shape == kept.features.shape
    assert not torch.allclose(dropped.features, kept.features, rtol=1e-2)
    assert torch.isfinite(model([inputs])[0]["sem_seg"]).all()
    model.mask_threshold = 1.0  # no valid mask
    assert len(model.encode([inputs])[0].crops.features) == 0


def test_it_takes_the_place_of_mask_prompts(small_config) -> None:
    with pytest.raises(UserError, match=r"BACKGROUND drop .*MASK_PROMPT_FWD False"):
        check_config(small_config(*DROP[:2], "MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD", "True"))
    check_config(small_config(*DROP))
    given = ["--clip", "ViT-B/16", "--train-data", "x", "--output", "y.pt", "--background", "drop"]
    with pytest.raises(UserError, match="--background drop"):
        parse_arguments([*given, "--train", "mask-prompts"])
    assert parse_arguments(given).background == "drop"
