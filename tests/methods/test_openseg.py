"""OpenSeg: its losses computed otherwise, who learns from what, words that are found."""

from __future__ import annotations

import itertools
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
from ovseg.methods.openseg import OpenSegCriterion, grounding_loss, pool_regions
from ovseg.modeling.matcher import HungarianMatcher
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


def mask_losses_by_hand(
    logits: np.ndarray, masks: list[np.ndarray], weights: tuple[float, float]
) -> tuple[float, float, set[tuple[int, int]]]:
    """Focal and dice loss of the cheapest assignment, by trying all; and the queries that learn."""

    def costs(one: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
        probs = 1 / (1 + np.exp(-one))
        right = np.where(truth == 1, probs, 1 - probs)
        alpha = np.where(truth == 1, 0.25, 0.75)
        focal = (alpha * -np.log(right) * (1 - right) ** 2).mean()
        dice = 1 - (2 * (probs * truth).sum() + 1) / (probs.sum() + truth.sum() + 1)
        return focal, dice

    total, learn = np.zeros(2), set()
    for image, truths in enumerate(masks):
        every = itertools.permutations(range(logits.shape[1]), len(truths))
        found = [(np.sum([costs(logits[image, q], t) for q, t in zip(queries, truths, strict=True)],
                         axis=0), queries) for queries in every]  # fmt: skip
        cost, queries = min(found, key=lambda each: each[0] @ weights)
        total += cost
        learn |= {(image, query) for query in queries}
    focal, dice = total / sum(map(len, masks))
    return weights[0] * focal, weights[1] * dice, learn


def test_each_label_has_a_query_of_its_own_and_classes_are_not_read():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    corner, rest = torch.zeros(2, 4, 4, dtype=torch.bool)
    corner[:2, :2], rest[2:] = True, True
    truth = [torch.stack([corner, rest]), torch.stack([rest])]
    # labels that no class has
    targets = [{"masks": masks, "labels": torch.full((len(masks),), 999)} for masks in truth]
    criterion = OpenSegCriterion(HungarianMatcher(1.0, 5.0, 2.5), mask_weight=5.0, dice_weight=2.5)
    regions, texts = torch.zeros(2, 3, 4), torch.zeros(0, 4)
    losses = criterion([logits, logits.detach()], targets, regions, texts, [[], []])
    masks = [each.double().numpy() for each in truth]
    focal, dice, learn = mask_losses_by_hand(logits.detach().double().numpy(), masks, (5.0, 2.5))
    for suffix in ("", "_0"):
        assert losses[f"loss_mask{suffix}"].item() == pytest.approx(focal, rel=1e-5)
        assert losses[f"loss_dice{suffix}"].item() == pytest.approx(dice, rel=1e-5)
    (losses["loss_mask"] + losses["loss_dice"]).backward()
    assert logits.grad is not None
    learned = {(i, q) for i, q in np.ndindex(2, 3) if logits.grad[i, q].abs().sum() > 0}
    assert learned == learn
    nothing = [{"masks": masks[:0], "labels": torch.zeros(0, dtype=torch.int64)} for masks in truth]
    assert criterion([logits], nothing, regions, texts, [[], []])["loss_dice"] == 0


def test_the_loss_of_words_is_the_contrast_of_images_and_captions():
    torch.manual_seed(1)
    regions = F.normalize(torch.randn(3, 4, 5), dim=-1)
    texts = F.normalize(torch.randn(6, 5), dim=-1)
    captions, scale = [[0, 3], [], [5]], 7.0
    others = [[1, 2, 4], [3]]  # of images that are not in the batch
    found = grounding_loss(regions, texts, captions, torch.tensor(scale)).item()
    among_more = grounding_loss(regions, texts, captions, torch.tensor(scale), others).item()

    z, w = regions.double().numpy(), texts.double().numpy()

    def fit(image: int, words: list[int]) -> float:
        """How well an image's regions tell the words of a caption."""
        total = 0.0
        for word in words:
            cosines = [float(region @ w[word]) for region in z[image]]
            attention = np.exp([scale * c for c in cosines])
            total += float((attention / attention.sum()) @ cosines)
        return total / len(words)

    told = [0, 2]
    for result, candidates in ((found, []), (among_more, others)):
        loss = 0.0
        for own in told:
            images = np.exp([scale * fit(image, captions[own]) for image in range(3)])
            texts_of = [*(captions[caption] for caption in told), *candidates]
            fits = np.exp([scale * fit(own, words) for words in texts_of])
            loss -= np.log(images[own] / images.sum()) + np.log(fits[told.index(own)] / fits.sum())
        assert result == pytest.approx(loss / len(told), rel=1e-5)
    assert grounding_loss(regions, texts[:0], [[], [], []], torch.tensor(scale)) == 0


def test_captions_of_the_same_words_are_not_wrong():
    """The first two images are told of by the same words, and so is one of the other captions."""
    generator = torch.Generator().manual_seed(3)
    regions = F.normalize(torch.randn(3, 2, 4, generator=generator), dim=-1)
    texts = F.normalize(torch.randn(3, 4, generator=generator), dim=-1)
    captions, scale = [[0, 1], [1, 0], [2]], torch.tensor(5.0)
    found = grounding_loss(regions, texts, captions, scale, [[1, 0], [0]])
    # the loss is a mean over images, whose candidates may differ: by images alone it is, for each,
    # that of itself among those of other words
    cosines = torch.einsum("bqd,ud->bqu", regions, texts)
    grounded = ((scale * cosines).softmax(dim=1) * cosines).sum(dim=1)
    fits = scale * torch.stack(
        [grounded[:, [0, 1]].mean(dim=1), grounded[:, 2], grounded[:, 0]], dim=1
    )  # of each image and the captions "0 1", "2" and "0"
    expected = torch.tensor(0.0)
    for image, caption in ((0, 0), (1, 0), (2, 1)):
        images = [image, 2] if caption == 0 else [0, 1, 2]
        copies = torch.tensor([0, 1, 2] if caption == 0 else [0, 0, 0, 1, 2])  # it is there thrice
        own = fits[image, caption]
        expected += fits[images, caption].logsumexp(dim=0) - own
        expected += fits[image, copies].logsumexp(dim=0) - own
    torch.testing.assert_close(found, expected / 3)


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
    return (
        inputs if words is None else {**inputs, "caption_words": words, "other_captions": [["pig"]]}
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OpenSeg:
    torch.manual_seed(0)
    built = build_model(cfg_of(tmp_path_factory.mktemp("out")))
    assert isinstance(built, OpenSeg)
    return built


def test_gradients_reach_all_that_trains_and_clip_stays(model):
    model.train()
    losses = model([example(["owl", "brick wall"]), example(["yeti"])])
    kinds = {f"loss_{kind}{layer}" for kind in ("mask", "dice") for layer in ("", "_0", "_1")}
    assert set(losses) == {*kinds, "loss_grounding"}
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
