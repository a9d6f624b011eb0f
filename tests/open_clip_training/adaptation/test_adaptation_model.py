"""What trains, new mask prompts, and that the result is a CLIP that configs take."""

from __future__ import annotations

import open_clip
import pytest
import torch
from adaptation_world import command, weights, write_world
from clip_pairs import ARCHITECTURE
from detectron2.modeling import build_model

from open_clip_training.adaptation.model import load_clip
from open_clip_training.train import main
from ovseg.errors import UserError

PROMPTS = "visual.mask_embedding"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with pairs and a CLIP without mask prompts."""
    return write_world(tmp_path_factory.mktemp("adaptation"))


@pytest.mark.parametrize("train", ["visual", "mask-prompts", "both"])
def test_only_the_named_weights_train(world, tmp_path, train):
    main(command(world, tmp_path / "new.pt", "--train", train, "--steps", 2))
    before, after = weights(world / "clip.pt"), weights(tmp_path / "new.pt")
    assert (PROMPTS in after) == (train != "visual")
    changed = {k for k in after if k not in before or not torch.equal(before[k].half(), after[k])}
    visual = {key for key in before if key.startswith("visual.")}
    assert changed == {
        "visual": visual, "mask-prompts": {PROMPTS}, "both": visual | {PROMPTS}
    }[train]  # fmt: skip
    if train != "visual":
        assert after[PROMPTS].shape == (3, 16, 16)
        assert after[PROMPTS].any()


def test_prompts_without_background_change_nothing(world):
    plain, _ = load_clip(str(world / "clip.pt"), "", None, prompts_train=False)
    prompted, _ = load_clip(str(world / "clip.pt"), "", None, prompts_train=True)
    original = open_clip.CLIP(**ARCHITECTURE)
    original.load_state_dict(weights(world / "clip.pt"))
    images, full = torch.randn(3, 3, 16, 16), torch.ones(3, 1, 16, 16)
    with torch.no_grad():
        torch.nn.init.normal_(prompted.visual.mask_embedding)
        wanted = original.eval().encode_image(images)
        assert not torch.allclose(prompted.visual(images, 0 * full), wanted, atol=1e-2)
        torch.testing.assert_close(prompted.visual(images, full), wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(plain.visual(images), wanted, atol=1e-5, rtol=1e-5)


def test_new_prompts_of_depth_1_see_what_clip_sees_in_filled_patches(world):
    model, _ = load_clip(str(world / "clip.pt"), "", 1, prompts_train=True)
    image, mask = torch.randn(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., :8, :12] = 1
    with torch.no_grad():
        torch.testing.assert_close(
            model.visual(image * mask, mask), model.visual(image * mask), atol=1e-6, rtol=1e-5
        )


def test_result_is_what_a_config_takes(world, tmp_path, small_config):
    adapted = tmp_path / "new.pt"
    main(command(world, adapted, "--train", "mask-prompts", "--mask-prompt-depth", 2))
    opts = ["MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", adapted, "MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH"]
    clip = build_model(small_config(*map(str, opts), "2")).clip_adapter.clip_model
    for key, value in weights(adapted).items():
        assert torch.equal(clip.state_dict()[key], value.float()), key
    # and what the next stage starts from
    main(command(world, tmp_path / "both.pt", "--train", "both", "--clip", adapted))
    assert weights(tmp_path / "both.pt")[PROMPTS].shape == (2, 16, 16)
    with pytest.raises(UserError, match=r"--mask-prompt-depth 3.*depth 2"):
        main(command(world, tmp_path / "x.pt", "--clip", adapted, "--mask-prompt-depth", 3))
