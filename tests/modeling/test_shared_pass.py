"""One pass for all regions, against a single sequence under an explicit attention mask."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_world import CLIP_ARCHITECTURE

from ovseg import UserError
from ovseg.modeling.clip import (
    MaskPromptedViT,
    RegionTokens,
    SharedPass,
    build_untrained_clip,
    region_features,
)
from ovseg.modeling.clip.shared_pass import _embed, covered_patches, patch_grid
from ovseg.vocabulary import Vocabulary

ADAPTER = "MODEL.CLIP_ADAPTER."
WORDS = ["wall", "sky", "traffic light"]


@pytest.fixture(scope="module")
def visual() -> MaskPromptedViT:
    torch.manual_seed(0)
    visual = build_untrained_clip(CLIP_ARCHITECTURE, 0).eval().visual
    with torch.no_grad():
        for parameter in visual.parameters():  # biases too, which are zero at first
            parameter.add_(0.1 * torch.randn_like(parameter))
    return visual


@pytest.fixture
def covered() -> torch.Tensor:
    """Two images of 3 x 5 patches with three regions each."""
    generator = torch.Generator().manual_seed(1)
    covered = torch.rand(2, 3, 15, generator=generator) > 0.6
    covered[:, :, 0] |= ~covered.any(dim=2)
    return covered


def slowly(
    visual: MaskPromptedViT, images: torch.Tensor, covered: torch.Tensor, first: int,
    tokens: RegionTokens | None = None,
) -> torch.Tensor:  # fmt: skip
    """Copies and patches as one sequence, image by image and head by head."""
    features = []
    for image, masks in zip(images, covered, strict=True):
        maps = visual.conv1(image[None])[0]
        grid = visual.positional_embedding[1:].T.view(1, -1, 4, 4)
        grid = F.interpolate(grid, size=maps.shape[1:], mode="bicubic")[0]
        x = torch.cat([visual.class_embedding[:, None], maps.flatten(1)], dim=1).T
        x = x + torch.cat([visual.positional_embedding[:1], grid.flatten(1).T])
        x = visual.ln_pre(x)
        plain, count = len(x), len(masks)
        x = torch.cat([x, x[:1].expand(count, -1)])
        for depth, block in enumerate(visual.transformer.resblocks):
            if depth < first:
                # copies stay copies of the class token
                x = block(x[None, :plain])[0]
                x = torch.cat([x, x[:1].expand(count, -1)])
                continue
            normed, attn = block.ln_1(x), block.attn
            q, k, v = F.linear(normed, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
            if tokens is not None and tokens.queries is not None:
                own = normed[plain:] @ tokens.queries[depth - first].T
                q = torch.cat([q[:plain], own + tokens.query_bias[depth - first]])
            added = torch.full((attn.num_heads, len(x), len(x)), -torch.inf)
            added[:, :plain, :plain] = 0
            for region in range(count):
                row = plain + region
                added[:, row, row] = added[:, row, 0] = 0
                for patch in range(plain - 1):
                    if tokens is not None and tokens.inside is not None:
                        inside = tokens.inside[depth - first].exp()
                        added[:, row, 1 + patch] = inside if masks[region, patch] else -100.0
                    elif masks[region, patch]:
                        added[:, row, 1 + patch] = 0
            width = x.shape[1] // attn.num_heads
            heads = []
            for head, part in enumerate(range(0, x.shape[1], width)):
                one = slice(part, part + width)
                logits = q[:, one] @ k[:, one].T / width**0.5 + added[head]
                heads.append(logits.softmax(dim=-1) @ v[:, one])
            x = x + attn.out_proj(torch.cat(heads, dim=1))
            x = x + block.mlp(block.ln_2(x))
        features.append(visual.ln_post(x[plain:]) @ visual.proj)
    return torch.stack(features)


@torch.no_grad()
@pytest.mark.parametrize("first", [0, 2, 3])
@pytest.mark.parametrize("kind", ["none", "mask-queries", "mask-bias"])
def test_equals_one_sequence_with_an_attention_mask(visual, seeded, covered, first, kind) -> None:
    images = torch.stack([seeded.image(24, 40, place) for place in (1, 2)]) / 255
    tokens = None
    if kind != "none":
        torch.manual_seed(2)
        tokens = RegionTokens(visual, first, kind)
        for parameter in tokens.parameters():
            parameter.add_(torch.randn_like(parameter))
    found = region_features(visual, images, covered, first_block=first, tokens=tokens)
    expected = slowly(visual, images, covered, first, tokens)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_own_queries_start_as_clips(visual, seeded, covered) -> None:
    images = torch.stack([seeded.image(24, 40, place) for place in (1, 2)]) / 255
    tokens = RegionTokens(visual, 1, "mask-queries")
    plain = region_features(visual, images, covered, first_block=1)
    torch.testing.assert_close(
        region_features(visual, images, covered, first_block=1, tokens=tokens), plain
    )


@torch.no_grad()
def test_the_only_region_of_a_whole_image_is_nearly_its_class_token(visual, seeded) -> None:
    """A copy in the last block that sees everything differs from the class token by itself."""
    image = seeded.image(32, 32, 1)[None] / 255
    everything = torch.ones(1, 1, 16, dtype=torch.bool)
    found = region_features(visual, image, everything, first_block=3)[0, 0]
    torch.testing.assert_close(found, slowly(visual, image, everything, 3)[0, 0])
    assert F.cosine_similarity(found, visual(image)[0], dim=0) > 0.95


@torch.no_grad()
def test_values_are_pooled_under_the_mask(visual, seeded, covered) -> None:
    images = torch.stack([seeded.image(24, 40, place) for place in (1, 2)]) / 255
    found = region_features(visual, images, covered, readout="values")
    block = visual.transformer.resblocks[-1]
    x = _embed(visual, images)
    for earlier in visual.transformer.resblocks[:-1]:
        x = earlier(x)
    values = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    values = values[..., 64:]
    for image in range(2):
        for region in range(3):
            under = [values[image, 1 + p] for p in range(15) if covered[image, region, p]]
            mean = torch.stack(under).mean(dim=0)
            expected = visual.ln_post(block.attn.out_proj(mean)) @ visual.proj
            torch.testing.assert_close(found[image, region], expected, rtol=1e-4, atol=1e-5)


def test_patches_under_masks_by_hand() -> None:
    masks = torch.zeros(3, 4, 6, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 3, 2:4] = True
    masks[2] = True
    assert covered_patches(masks, (2, 3)).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [1, 1, 1, 1, 1, 1],
    ]
    # no multiple of the patches: every mask still covers one
    single = torch.eye(35, dtype=torch.bool).view(35, 5, 7)
    assert covered_patches(single, (3, 4)).any(dim=1).all()
    assert covered_patches(masks[:0], (2, 3)).shape == (0, 6)


def test_the_image_keeps_its_aspect() -> None:
    assert patch_grid((512, 672), 336, 14) == (24, 32)
    assert patch_grid((100, 50), 32, 8) == (8, 4)
    assert patch_grid((1000, 5), 32, 8) == (800, 4)


@torch.inference_mode()
def test_the_model_sees_an_image_once(small_model, seeded, monkeypatch) -> None:
    model = small_model(f"{ADAPTER}REGION_ENCODER", "shared", f"{ADAPTER}SHARED_RESOLUTION", "48")
    crops = small_model()
    image = seeded.image(64, 96, 1)
    monkeypatch.setattr(model.crop_encoder, "clip_adapter", None)  # no crop is cut
    regions = model.encode([{"image": image}])[0]
    plain = crops.encode([{"image": image}])[0]
    assert torch.equal(regions.crops.valid, plain.crops.valid)
    masks = regions.masks[regions.crops.valid] > model.mask_threshold
    adapter = model.clip_adapter
    small = F.interpolate(
        (image[None].float() - adapter.pixel_mean) / adapter.pixel_std,
        size=(48, 72), mode="bicubic", antialias=True,
    )  # fmt: skip
    expected = slowly(adapter.clip_model.visual, small, covered_patches(masks, (6, 9))[None], 0)
    torch.testing.assert_close(regions.crops.features, expected[0], rtol=1e-3, atol=1e-4)
    found = model([{"image": image, "class_names": WORDS, "output": "labels"}])[0]
    again = model.segment({"image": image, "class_names": WORDS, "output": "labels"}, regions)
    assert torch.equal(found["labels"], again["labels"])


@torch.inference_mode()
@pytest.mark.parametrize("min_area", [0.0, 0.2])
def test_both_takes_crops_of_proposals_that_decide(small_model, seeded, min_area: float) -> None:
    shared = small_model(f"{ADAPTER}REGION_ENCODER", "shared")
    area = (f"{ADAPTER}CROPS_MIN_AREA", str(min_area))
    both = small_model(f"{ADAPTER}REGION_ENCODER", "both", *area)
    crops = small_model()
    inputs = {"image": seeded.image(64, 96, 1), "class_names": WORDS, "output": "labels"}
    text = both.text(Vocabulary.of(WORDS))
    encoded = both.encode([inputs])[0]
    found = both.classify(encoded, text)
    before = shared.classify(shared.encode([inputs])[0], text)
    exact = crops.classify(crops.encode([inputs])[0], text)
    values = encoded.masks * before.class_probs.amax(dim=1)[:, None, None]
    largest = (values == values.amax(dim=0)).flatten(1).float().mean(dim=1)
    decide, shown = largest > min_area, largest > 0
    assert torch.equal(encoded.crops.encoded, decide & encoded.crops.valid)
    assert 0 < decide.sum() < len(decide)
    # what is largest nowhere is left out
    assert torch.equal(found.queries, shown.nonzero()[:, 0])
    of_crops = decide[found.queries]
    assert of_crops.all() == (min_area == 0)
    torch.testing.assert_close(found.class_probs[of_crops], exact.class_probs[decide])
    small = found.queries[~of_crops]
    torch.testing.assert_close(found.class_probs[~of_crops], before.class_probs[small])
    again = both.segment(inputs, encoded)
    assert torch.equal(again["labels"], both([inputs])[0]["labels"])


@torch.inference_mode()
@pytest.mark.parametrize("encoder", ["shared", "both"])
def test_no_valid_mask(small_model, seeded, encoder) -> None:
    model = small_model(f"{ADAPTER}REGION_ENCODER", encoder, f"{ADAPTER}MASK_THR", "1.0")
    scores = model([{"image": seeded.image(64, 96, 1), "class_names": WORDS}])[0]["sem_seg"]
    assert torch.isfinite(scores).all()


def test_trained_tokens_come_from_their_file(small_model, small_config, tmp_path: Path) -> None:
    first = ("MODEL.CLIP_ADAPTER.SHARED_FIRST_BLOCK", "1")
    model = small_model(f"{ADAPTER}REGION_ENCODER", "shared", *first)
    visual = model.clip_adapter.clip_model.visual
    tokens = RegionTokens(visual, 1, "mask-queries")
    file = tmp_path / "tokens.pt"
    torch.save({name: value.half() for name, value in tokens.state_dict().items()}, file)
    read = SharedPass(model.clip_adapter, first_block=1, weights=str(file)).tokens
    torch.testing.assert_close(read.queries, tokens.queries.detach(), rtol=1e-3, atol=1e-3)
    assert not read.queries.requires_grad
    with pytest.raises(UserError, match="SHARED_FIRST_BLOCK"):
        SharedPass(model.clip_adapter, first_block=0, weights=str(file))
    with pytest.raises(UserError, match="SHARED_WEIGHTS"):
        SharedPass(model.clip_adapter, weights=str(tmp_path / "none.pt"))
    broken = tmp_path / "broken.pt"
    broken.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match=r"SHARED_WEIGHTS '.*broken\.pt' cannot be read"):
        SharedPass(model.clip_adapter, weights=str(broken))
    with pytest.raises(UserError, match="FIRST_BLOCK 9"):
        SharedPass(model.clip_adapter, first_block=9)
