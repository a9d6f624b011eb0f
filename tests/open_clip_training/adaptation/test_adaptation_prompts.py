"""New mask prompts start as the means of the tokens that they replace."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from open_clip_training.adaptation.batches import Batch
from open_clip_training.adaptation.prompts import start_prompts
from open_clip_training.common.images import MEAN, normalise
from ovseg.modeling.clip import build_untrained_clip

CLIP_ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1},
}


class Crops:
    """Stands for the training crops: whatever is asked for, these."""

    def __init__(self, images: Tensor, masks: Tensor, valid: Tensor) -> None:
        self.batch = Batch(images, masks, valid)

    def __len__(self) -> int:
        return len(self.batch.images)

    def __getitem__(self, indices: list[int]) -> Batch:
        assert sorted(indices) == list(range(len(self)))
        return Batch(
            self.batch.images[indices], self.batch.masks[indices], self.batch.valid[indices]
        )


def crops(count: int) -> Crops:
    torch.manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    masks = torch.zeros(count, 1, 32, 32, dtype=torch.uint8)
    for index in range(count):
        # the last column of patches is never foreground, the first always
        masks[index, :, :, :8] = 1
        masks[index, :, index % 3 * 8 : index % 3 * 8 + 5, 8:20] = 1
    return Crops(images, masks, torch.ones(count, dtype=torch.bool))


def tokens_after(model: torch.nn.Module, images: Tensor, prompts: list[Tensor], background: Tensor):
    """Patch tokens after as many blocks as there are prompts, written out again."""
    visual = model.visual
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    for depth, prompt in enumerate(prompts):
        if depth == 0:
            x = torch.where(background[..., None], prompt, x)
            x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
            x = visual.ln_pre(x + visual.positional_embedding)
        else:
            patches = torch.where(background[..., None], prompt, x[:, 1:])
            x = torch.cat([x[:, :1], patches], dim=1)
        x = visual.transformer.resblocks[depth](x)
    return x[:, 1:]


def test_rows_are_means_of_what_they_replace() -> None:
    model = build_untrained_clip(CLIP_ARCHITECTURE, 3)
    torch.nn.init.zeros_(model.visual.mask_embedding)
    data = crops(7)
    data.batch.valid[4] = False
    start_prompts(model, data, seed=0)
    rows = model.visual.mask_embedding.detach()

    kept = [0, 1, 2, 3, 5, 6]
    images = normalise(data.batch.images[kept])
    blocks = data.batch.masks[kept].float().reshape(6, 4, 8, 4, 8).amax(dim=(2, 4))
    background = blocks.flatten(1) == 0
    assert not rows[0].any()
    with torch.no_grad():
        for depth in (1, 2):
            tokens = tokens_after(model, images, list(rows[:depth]), background)
            for place in range(16):
                here = background[:, place]
                those = tokens[here, place] if here.any() else tokens[background]
                expected = those.mean(dim=0)
                torch.testing.assert_close(rows[depth, place], expected)
    assert background.any(dim=0).tolist() == [False, True, True, True] * 4


def test_equal_crops_are_classified_as_without_prompts() -> None:
    with_prompts = build_untrained_clip(CLIP_ARCHITECTURE, 3)
    torch.nn.init.zeros_(with_prompts.visual.mask_embedding)
    data = crops(1)
    background = data.batch.masks == 0
    # filled as the segmentation network fills crops, up to the rounding of its colour
    fill = torch.tensor(MEAN).view(3, 1, 1) * 255
    filled = torch.where(background, fill.round(), data.batch.images.float()).byte()
    same = Crops(filled.expand(5, -1, -1, -1), data.batch.masks.expand(5, -1, -1, -1),
                 torch.ones(5, dtype=torch.bool))  # fmt: skip
    start_prompts(with_prompts, same, seed=0)
    with torch.no_grad():
        plain = with_prompts.visual(normalise(filled))
        prompted = with_prompts.visual(normalise(filled), data.batch.masks.float())
        zeroed = torch.zeros_like(with_prompts.visual.mask_embedding)
        with_prompts.visual.mask_embedding.copy_(zeroed)
        from_zero = with_prompts.visual(normalise(filled), data.batch.masks.float())
    assert (prompted - plain).norm() < 0.02 * plain.norm()
    assert (from_zero - plain).norm() > 5 * (prompted - plain).norm()
