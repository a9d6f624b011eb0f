"""OpenSeg: its losses computed otherwise, who learns from what, words that are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils import comm
from tiny_world import CONFIGS
from torch.nn import functional as F

from ovseg import UserError
from ovseg.config import setup_cfg
from ovseg.methods import OpenSeg
from ovseg.methods.openseg import grounding_loss, mask_loss, pool_regions
from ovseg.structures import Regions
from ovseg.vocabulary import Vocabulary


def cfg_of(folder: Path, *opts: str) -> Any:
    return setup_cfg(
        CONFIGS / "methods" / "openseg.yaml",
        ["MODEL.DEVICE", "cpu", "MODEL.CLIP_ADAPTER.TEXT_CACHE", "False",
         "OUTPUT_DIR", str(folder), *opts],
    )  # fmt: skip


def test_regions_are_means_over_soft_masks():
    features = torch.tensor([[[[2.0, 4.0], [6.0, 8.0]], [[1.0, 0.0], [0.0, 0.0]]]])
    large = 50.0
    logits = torch.tensor([[[[large, large], [-large, -large]], [[0.0, 0.0], [0.0, 0.0]]]])
    expected = torch.tensor([[[3.0, 0.5], [5.0, 0.25]]])
    torch.testing.assert_close(pool_regions(logits, features), expected)


def dice_by_hand(probs: np.ndarray, truth: np.ndarray) -> float:
    return 1 - (2 * (probs * truth).sum() + 1) / (probs.sum() + truth.sum() + 1)


def test_each_label_learns_by_the_query_that_overlaps_it_best():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2, 2, requires_grad=True)
    truth = [torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 1]]]).bool(),
             torch.tensor([[[1, 0], [1, 0]]]).bool()]  # fmt: skip
    targets = [{"masks": masks.repeat_interleave(2, 1).repeat_interleave(2, 2)} for masks in truth]
    loss = mask_loss(logits, targets)
    probs = logits.detach().sigmoid().double().numpy()
    terms = []
    best = []
    for image, masks in enumerate(truth):
        for mask in masks.double().numpy():
            each = [dice_by_hand(probs[image, query], mask) for query in range(3)]
            terms.append(min(each))
            best.append((image, int(np.argmin(each))))
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    learned = {(i, q) for i, q in np.ndindex(2, 3) if logits.grad[i, q].abs().sum() > 0}
    assert learned == set(best)
    nothing = [{"masks": torch.zeros(0, 4, 4, dtype=torch.bool)}] * 2
    assert mask_loss(logits, nothing) == 0


def test_the_loss_of_words_is_the_contrast_of_images_and_captions():
    torch.manual_seed(1)
    regions = F.normalize(torch.randn(3, 4, 5), dim=-1)
    texts = F.normalize(torch.randn(6, 5), dim=-1)
    captions, scale = [[0, 3], [], [5]], 7.0
    found = grounding_loss(regions, texts, captions, torch.tensor(scale)).item()

    z, w = regions.double().numpy(), texts.double().numpy()

    def fit(image: int, caption: int) -> float:
        """How well an image's regions tell the words of a caption."""
        total = 0.0
        for word in captions[caption]:
            cosines = [float(region @ w[word]) for region in z[image]]
            attention = np.exp([scale * c for c in cosines])
            total += float((attention / attention.sum()) @ cosines)
        return total / len(captions[caption])

    told = [0, 2]
    loss = 0.0
    for own in told:
        images = np.exp([scale * fit(image, own) for image in range(3)])
        others = np.exp([scale * fit(own, caption) for caption in told])
        loss -= np.log(images[own] / images.sum()) + np.log(others[told.index(own)] / others.sum())
    assert found == pytest.approx(loss / len(told), rel=1e-5)
    assert grounding_loss(regions, texts[:0], [[], [], []], torch.tensor(scale)) == 0


def test_words_of_captions_become_the_names_of_regions():
    """A word without any label is found by the region that its captions have in common."""
    torch.manual_seed(0)
    names = ["cat", "sky", "yeti"]
    texts = torch.eye(4)[:3]
    # what the regions of three images show; the first two and the last two share one
    kinds = [[0, 1], [1, 2], [2, 0]]
    table = torch.randn(3, 4, requires_grad=True)
    optimizer = torch.optim.Adam([table], lr=0.05)
    for _ in range(150):
        regions = F.normalize(table[torch.tensor(kinds)], dim=-1)
        loss = grounding_loss(regions, texts, kinds, torch.tensor(10.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = (F.normalize(table, dim=-1) @ texts.T).argmax(dim=1)
    assert [names[place] for place in found] == names


def example(words: list[str] | None) -> dict[str, Any]:
    truth = Instances((64, 64))
    truth.gt_classes = torch.tensor([0, 2])
    truth.gt_masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    truth.gt_masks[0, :32], truth.gt_masks[1, 40:] = True, True
    generator = torch.Generator().manual_seed(len(words or ()))
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)
    inputs = {"image": image, "instances": truth, "class_names": ["a", "b", "c"]}
    return inputs if words is None else {**inputs, "caption_words": words}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OpenSeg:
    torch.manual_seed(0)
    built = build_model(cfg_of(tmp_path_factory.mktemp("out")))
    assert isinstance(built, OpenSeg)
    return built


def test_gradients_reach_all_that_trains_and_clip_stays(model):
    model.train()
    losses = model([example(["owl", "brick wall"]), example(["yeti"])])
    assert set(losses) == {"loss_mask", "loss_mask_0", "loss_mask_1", "loss_grounding"}
    pooled = model.sem_seg_head.pixel_decoder.mask_features.weight
    reached: dict[str, set[str]] = {}
    for kind, teaches_meaning in (("loss_mask", False), ("loss_grounding", True)):
        model.zero_grad()
        losses[kind].backward(retain_graph=True)
        reached[kind] = {name for name, p in model.named_parameters() if p.grad is not None}
        # the first rows make masks, the others what regions mean
        assert pooled.grad is not None
        assert pooled.grad[:96].any()
        assert pooled.grad[96:].any() == teaches_meaning
    assert "criterion.log_scale" in reached["loss_grounding"] - reached["loss_mask"]
    assert "sem_seg_head.predictor.mask_embed.layers.0.weight" in reached["loss_grounding"]
    for name, parameter in model.named_parameters():
        trains = not name.startswith("clip_adapter.")
        assert parameter.requires_grad == trains, name
        assert (name in reached["loss_mask"] | reached["loss_grounding"]) == trains, name


def test_captions_without_words_teach_masks_alone(model):
    losses = model.train()([example([]), example([])])
    assert losses["loss_grounding"] == 0
    assert losses["loss_mask"] > 0


def test_one_process_trains_it(model, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with pytest.raises(UserError, match="one process trains it: leave out --num-gpus"):
        model.train()([example(["owl"]), example(["yeti"])])


def test_regions_are_pooled_in_float32_in_mixed_precision():
    logits, features = torch.full((1, 1, 400, 400), 10.0), torch.full((1, 2, 400, 400), 3.0)
    with torch.autocast("cpu", torch.float16):
        pooled = pool_regions(logits.half(), features.half())
    torch.testing.assert_close(pooled, torch.full((1, 1, 2), 3.0), rtol=1e-3, atol=0)


def test_any_word_can_be_found(model):
    vocabulary = Vocabulary.of(["grass", "a yeti", "fire truck"])
    text = model.eval().text(vocabulary)
    regions = Regions(torch.zeros(3, 8, 8), torch.rand(3, 8, 8), 3 * text.features[[2, 1, 0]])
    assert model.classify_queries(regions, text).argmax(dim=1).tolist() == [2, 1, 0]
    inputs = {**example(None), "class_names": vocabulary, "output": "labels", "height": 50}
    with torch.inference_mode():
        (found,) = model([inputs])
    assert found["labels"].shape == (50, 64)
    assert set(found["labels"].unique().tolist()) <= {0, 1, 2}


def test_what_is_missing_is_named(model, tmp_path):
    with pytest.raises(UserError, match=r"set INPUT\.CAPTION_WORDS to the file"):
        model.train()([example(["owl"]), example(None)])
    with pytest.raises(UserError, match="CLIP_ENSEMBLE True: OpenSeg shows CLIP no crops"):
        build_model(cfg_of(tmp_path, "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE", "True"))
