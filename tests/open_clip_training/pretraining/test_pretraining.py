"""CLIP pretraining on a handful of pictures."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import replace

import cv2
import numpy as np
import open_clip
import pytest
import torch

from open_clip_training.pretrain import main
from open_clip_training.pretraining.captioned_images import jitter_images, load_captioned_images
from open_clip_training.pretraining.run import (
    PretrainingRun,
    batch_indices,
    build_model,
    encode_by_length,
    tokens_in_use,
)
from open_clip_training.pretraining.settings import PretrainingSettings
from open_clip_training.pretraining.zero_shot import load_regions, zero_shot
from ovseg.errors import UserError
from ovseg.modeling.clip import build_clip, encode_tokens

TINY = {
    "embed_dim": 16,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


CAPTIONS = ["cat", "a dog on the grass", "cat", "a photo of a tulip.", "sand and water", "a kitten"]


@pytest.fixture(scope="module")
def tokenizer():
    return open_clip.SimpleTokenizer(context_length=77)


@pytest.fixture
def root(tmp_path):
    """A StickerScenes folder of six captioned pictures and one dev picture."""
    rng = np.random.default_rng(0)
    (tmp_path / "clip_train").mkdir()
    with (tmp_path / "clip_train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filepath", "title"])
        for index, caption in enumerate(CAPTIONS):
            name = f"clip_train/{index}.png"
            cv2.imwrite(str(tmp_path / name), rng.integers(0, 255, (16, 16, 3), np.uint8))
            writer.writerow([name, caption])
    for kind in ("images", "annotations", "instances"):
        (tmp_path / kind / "dev").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "images/dev/0.png"), rng.integers(0, 255, (24, 24, 3), np.uint8))
    labels, instances = np.full((24, 24), 134, np.uint8), np.zeros((24, 24), np.uint8)
    labels[4:14, 6:20], instances[4:14, 6:20] = 144, 1
    cv2.imwrite(str(tmp_path / "annotations/dev/0.png"), labels)
    cv2.imwrite(str(tmp_path / "instances/dev/0.png"), instances)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    return tmp_path


def load(root, tokenizer):
    table = root / "clip_train.csv"
    return load_captioned_images(
        table, 16, tokenizer, lambda texts: tokens_in_use(tokenizer, texts)
    )


def command(root, *extra):
    paths = ["--root", root, "--model-config", root / "tiny.json", "--output", root / "out/clip.pt"]
    return [str(a) for a in (*paths, "--batch-size", 4, "--eval-every", 0, *extra)]


def test_any_text_can_be_encoded(tokenizer):
    model = build_model(TINY, tokens_in_use(tokenizer, ["a cat"])).eval()
    assert {tokenizer.sot_token_id, tokenizer.eot_token_id} <= set(
        model.token_embedding.token_ids.tolist()
    )
    texts = ["cat", "zyzzyva quux 漢字", ""]
    with torch.no_grad():
        features = model.encode_text(tokenizer(texts))
        short = encode_by_length(model, tokenizer(texts), chunks=3)
    assert torch.isfinite(features).all()
    # a batch cut to its longest text gives the features of the full length
    torch.testing.assert_close(short, features, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        encode_tokens(model, tokenizer(texts)), features, atol=1e-5, rtol=1e-4
    )


def test_batches_go_through_the_whole_set_in_new_orders():
    settings = PretrainingSettings(batch=5)
    epochs = [
        torch.cat([batch_indices(step, 20, settings) for step in range(start, start + 4)])
        for start in (0, 4)
    ]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(20))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_augmentation_keeps_the_range():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    changed = jitter_images(images)
    assert changed.shape == images.shape
    assert 0 <= changed.min() <= changed.max() <= 255
    assert not torch.equal(changed, images.float())


def test_two_steps_give_a_checkpoint_of_the_usual_form(root, tokenizer, caplog):
    caplog.set_level(logging.INFO)
    main(command(root, "--steps", 2))
    checkpoint = torch.load(root / "out/clip.pt", weights_only=True)
    assert set(checkpoint) == {"state_dict", "model_cfg", "step"}
    rows = len(checkpoint["state_dict"]["token_embedding.token_ids"])
    assert checkpoint["model_cfg"] == {**TINY, "text_cfg": {**TINY["text_cfg"], "vocab_size": rows}}
    assert checkpoint["step"] == 2
    floats = {v.dtype for v in checkpoint["state_dict"].values() if v.is_floating_point()}
    assert floats == {torch.float16}
    assert checkpoint["state_dict"]["token_embedding.token_ids"].dtype == torch.int64
    assert rows == len(load(root, tokenizer).token_ids) + 1
    model = build_clip(str(root / "out/clip.pt"), "", mask_prompt_depth=0)
    for name, value in checkpoint["state_dict"].items():
        assert torch.equal(model.state_dict()[name].to(value.dtype), value), name
    assert "zero-shot" in caplog.text


def test_a_check_that_was_broken_off_is_made_up_for(root, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    seen = []

    def check(*_):
        seen.append(len(seen))
        if len(seen) == 1:
            raise KeyboardInterrupt
        return {"accuracy": 50.0}

    monkeypatch.setattr("open_clip_training.pretraining.loop.zero_shot", check)
    with pytest.raises(KeyboardInterrupt):
        main(command(root, "--steps", 2, "--overwrite"))
    assert "zero-shot" not in caplog.text
    main(command(root, "--steps", 2, "--resume"))
    assert len(seen) == 2
    assert "step 2 zero-shot {'accuracy': 50.0}" in caplog.text


def test_a_resumed_run_equals_an_unbroken_one(root, tokenizer):
    data = load(root, tokenizer)
    settings = PretrainingSettings(steps=4, batch=4, warmup=1)
    unbroken = PretrainingRun(data, TINY, settings)
    losses = [unbroken.advance() for _ in range(4)]
    first = PretrainingRun(data, TINY, settings)
    assert [first.advance() for _ in range(2)] == losses[:2]
    first.save(root / "out/clip.pt")
    second = PretrainingRun(data, TINY, settings)
    second.resume(root / "out/clip.pt")
    assert [second.advance() for _ in range(2)] == losses[2:]
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_a_run_does_not_go_on_with_other_data_or_another_architecture(root, tokenizer):
    data = load(root, tokenizer)
    settings = PretrainingSettings(steps=4, batch=4, warmup=1)
    PretrainingRun(data, TINY, settings).save(root / "out/clip.pt")
    images = data.images.clone()
    images[0] = 255 - images[0]
    vision = {**TINY["vision_cfg"], "head_width": TINY["vision_cfg"].get("head_width", 64) // 2}
    for other, what in (
        (PretrainingRun(replace(data, images=images), TINY, settings), "images and captions"),
        (PretrainingRun(data, {**TINY, "vision_cfg": vision}, settings), "the architecture"),
    ):
        with pytest.raises(UserError, match=f"was begun with other settings \\({what}"):
            other.resume(root / "out/clip.pt")


def test_regions_are_cut_and_filled(root):
    regions = load_regions(root, "dev", 16, limit=10)
    assert regions.labels.tolist() == [134, 144]
    assert regions.alone.tolist() == [False, True]
    # the grass reaches every border, and the object in it is filled with CLIP's mean colour
    assert regions.masked[0][:, 6, 8].tolist() == [123, 117, 104]
    torch.testing.assert_close(regions.masked[1], regions.whole[1])


def test_zero_shot_reports_every_kind(root, tokenizer):
    regions = load_regions(root, "dev", 16, limit=10)
    model = build_model(TINY, tokens_in_use(tokenizer, []))
    result = zero_shot(model, regions)
    assert set(result) == {
        f"{kind}_{crop}"
        for kind in ("objects", "alone", "unseen", "all", "stuff")
        for crop in ("masked", "whole")
    }
    assert all(value in (0.0, 50.0, 100.0) for value in result.values())
    assert model.training


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--train-data", "nowhere.csv"], "nowhere.csv"),
        (["--batch-size", "100"], "--batch-size 100"),
        (["--resume"], "--resume"),
    ],
)
def test_bad_input_is_named(root, extra, message):
    with pytest.raises(UserError, match=message):
        main(command(root, *extra))
