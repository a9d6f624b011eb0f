"""None of these: general words, hand-made scores, and the whole model against its arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from ovseg import OVSeg, UserError
from ovseg.background_words import background_words
from ovseg.config import check_config
from ovseg.engine.test_time import MultiViewSegmenter
from ovseg.modeling.panoptic import SegmentFinder
from ovseg.modeling.reject import (
    SOFTNESS,
    probabilities_with_background,
    weigh_background,
)
from ovseg.modeling.segmentation import label_map
from ovseg.structures import Classified, PartialScores
from ovseg.vocabulary import Vocabulary

DEMO = "ovseg_swinB_vitL_demo.yaml"
EVALUATION = "ovseg_swinB_vitL_bs32_120k.yaml"
TEXTS = ("MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", "predefined")  # one text a word
WEIGHT = "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT"
ENSEMBLE = "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE"
WORDS = ["dog", "brick wall", "blue sky"]


@pytest.mark.parametrize(
    ("given", "gone", "kept"),
    [
        # the word itself, whatever its case and number, and its kind
        (["Dogs"], {"dog", "animal"}, {"cat", "bird", "person"}),
        # what has all its parts, or only parts of it
        (["wall"], {"wall", "brick wall", "concrete", "room"}, {"fence"}),
        (["brick wall"], {"wall", "brick wall"}, {"fence", "concrete"}),
        (["door, double door"], {"door", "house", "building"}, {"window"}),
        # a kind means its members
        (["animal"], {"animal", "dog", "bird", "spider"}, {"tree", "person"}),
        (["red apple"], {"apple", "fruit", "food"}, {"banana", "cheese"}),
        # a word without letters takes nothing away
        (["?!"], set(), {"dog", "wall", "animal"}),
        (["carpet"], {"carpet", "floor", "cloth"}, {"car", "rug"}),
    ],
)
def test_general_words_mean_none_of_the_users(
    given: list[str], gone: set[str], kept: set[str]
) -> None:
    words = background_words(given)
    assert not gone & set(words)
    assert kept <= set(words)
    assert len(words) == len(set(words)) > 150
    assert all(words)


def test_one_proposals_probabilities_by_hand() -> None:
    logits, background = torch.tensor([[3.0, 1.0]]), torch.tensor([[2.0, 0.0, -1.0]])
    every = [3.0, 1.0, 2.0, 0.0, -1.0]
    whole = sum(math.exp(x) for x in every)
    softened = sum(math.exp(x / SOFTNESS) for x in every)
    expected = [
        math.exp(3) / whole,
        math.exp(1) / whole,
        sum(math.exp(x / SOFTNESS) for x in every[2:]) / softened,
    ]
    found = probabilities_with_background(logits, background)
    torch.testing.assert_close(found, torch.tensor([expected]))
    # nothing stands for none, so nothing is none
    nothing = probabilities_with_background(logits, torch.zeros(1, 0))
    torch.testing.assert_close(nothing, torch.cat([logits.softmax(1), torch.zeros(1, 1)], 1))


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        # columns: dog 0.6, sky 0.3 | none 0.2 in the left mask; 0.1, 0.2 | 0.3 in the right one
        (0.1, [0, 1]),
        (0.39, [0, 1]),  # 0.3 * 0.39 < 0.2 * 0.61
        (0.41, [0, -1]),  # 0.3 * 0.41 > 0.2 * 0.59
        (0.74, [0, -1]),
        (0.76, [-1, -1]),  # 0.2 * 0.76 > 0.6 * 0.24
        (1.0, [-1, -1]),
    ],
)
def test_two_pixels_by_hand(strength: float, expected: list[int]) -> None:
    probs = torch.tensor([[0.6, 0.3, 0.2], [0.1, 0.2, 0.3]])
    classified = weigh_background(Classified(probs, torch.arange(2)), strength)
    masks = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    labels, _ = label_map([PartialScores(classified.class_probs, masks)], (1, 2))
    vocabulary = replace(Vocabulary.of(["dog", "sky"]), reject=strength)
    assert vocabulary.class_labels(labels).tolist() == [expected]


@pytest.fixture
def image(seeded) -> torch.Tensor:
    return seeded.image(64, 96, 1)


@torch.inference_mode()
def labels_of(model: OVSeg | MultiViewSegmenter, image: torch.Tensor, **inputs) -> torch.Tensor:
    return model([{"image": image, "class_names": WORDS, "output": "labels", **inputs}])[0][
        "labels"
    ]


@pytest.mark.parametrize(
    ("base", "opts"),
    [
        (EVALUATION, ()),
        (EVALUATION, (WEIGHT, "0.0")),
        (EVALUATION, (ENSEMBLE, "False")),
        (DEMO, (ENSEMBLE, "True", WEIGHT, "0.5")),
    ],
)
def test_more_strength_rejects_more(small_model, image, base, opts) -> None:
    model = small_model(*TEXTS, *opts, base=base)
    with torch.inference_mode():
        scores = model([{"image": image, "class_names": WORDS, "reject": 0.5}])[0]["sem_seg"]
    share = scores[-1] / (scores[:-1].amax(dim=0) + scores[-1])  # NaN where no mask is
    levels = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    strengths = (1 - share[~share.isnan()].quantile(levels.flip(0))).tolist()
    maps = [labels_of(model, image, reject=strength) for strength in (*strengths, 1.0)]
    for weaker, stronger in pairwise(maps):
        # what is left keeps its class, what has none stays without
        assert torch.equal(stronger.where(stronger >= 0, weaker), weaker)
    assert (maps[-1] < 0).all()
    for strength, labels in zip(strengths, maps, strict=False):
        clear = ((share + strength - 1).abs() > 1e-5) | share.isnan()
        assert torch.equal((labels < 0)[clear], ~(share < 1 - strength)[clear])
    rejected = [int((labels < 0).sum()) for labels in maps]
    assert len(set(rejected)) > (3 if base == EVALUATION else 1)


@pytest.mark.parametrize("base", [EVALUATION, DEMO])
@pytest.mark.parametrize("words", [WORDS, ["dog"], [["dog", "puppy"], "blue sky"]])
def test_off_is_the_published_system(small_model, image, base, words) -> None:
    plain = small_model(*TEXTS, base=base)
    strict = small_model(*TEXTS, "TEST.REJECT", "0.9", base=base)
    inputs = {"image": image, "class_names": words}
    with torch.inference_mode():
        expected = plain([inputs])[0]["sem_seg"]
        assert torch.equal(strict([{**inputs, "reject": 0.0}])[0]["sem_seg"], expected)
    published = labels_of(plain, image, class_names=words)
    assert torch.equal(labels_of(strict, image, class_names=words, reject=0), published)
    # the config's strength holds where the input has none of its own
    rejected = labels_of(strict, image, class_names=words)
    assert torch.equal(rejected, labels_of(plain, image, class_names=words, reject=0.9))
    assert not torch.equal(rejected, published)


@torch.inference_mode()
@pytest.mark.parametrize("words", [WORDS, ["dog"]])
def test_scores_are_the_stated_arithmetic(small_model, image, words) -> None:
    model, strength = small_model(*TEXTS), 0.3
    found = model([{"image": image, "class_names": words, "reject": strength}])[0]["sem_seg"]
    assert found.shape == (len(words) + 1, 64, 96)

    regions = model.encode([{"image": image}])[0]
    adapter, count = model.clip_adapter, len(words)
    text = adapter.text_features([*words, *background_words(words)])
    own, general, no_object = text[:count], text[count:-1], text[-1:]
    former = adapter.similarity(regions.embeddings, torch.cat([own, no_object])).softmax(1)
    crops = adapter.similarity(regions.crops.features, torch.cat([own, general]))
    soft = (crops / SOFTNESS).softmax(1)[:, count:].sum(1, keepdim=True)
    clip = torch.cat([crops.softmax(1)[:, :count], soft], 1)
    expected = torch.zeros_like(found)
    row = iter(clip)
    for mask, probs, valid in zip(regions.masks, former, regions.crops.valid, strict=True):
        both = probs**0.3 * (next(row) if valid else torch.ones(count + 1)) ** 0.7
        both[-1] *= strength / (1 - strength)
        expected += both[:, None, None] * mask
    torch.testing.assert_close(found, expected)
    labels = labels_of(model, image, class_names=words, reject=strength)
    best = expected.argmax(0)
    clear = (expected.topk(2, 0).values.diff(dim=0).abs() > 1e-6)[0]
    assert torch.equal(labels[clear], best.where(best < count, -1)[clear])


def test_several_views_reject_as_one(small_model, image) -> None:
    model = small_model(*TEXTS)
    both = torch.cat([image, image.flip(-1)], dim=-1)  # its own mirror image
    views = MultiViewSegmenter(model, flip=True)
    inputs = {"image": both, "class_names": WORDS, "reject": 0.5}
    with torch.inference_mode():
        scores = views([inputs])[0]["sem_seg"]
        # a strength that about half of the pixels stand
        share = scores[-1] / (scores[-1] + scores[:-1].amax(dim=0))
        inputs["reject"] = 1 - float(share.median())
        scores = views([inputs])[0]["sem_seg"]
        alone = model([inputs])[0]["sem_seg"]
    assert scores.shape == alone.shape == (4, 64, 192)
    torch.testing.assert_close(scores, (alone + alone.flip(-1)) / 2)
    labels = labels_of(views, both, reject=inputs["reject"])
    assert torch.equal(labels == -1, scores.argmax(dim=0) == 3)
    assert (labels == -1).any()
    assert (labels >= 0).any()


@torch.inference_mode()
def test_segments_and_instances_follow(small_model, image) -> None:
    model = small_model(*TEXTS)
    model.segment_finder = SegmentFinder(panoptic=True, instances=True)
    found = {
        strength: model([{"image": image, "class_names": WORDS, "reject": strength}])[0]
        for strength in (0.0, 1.0)
    }
    assert found[0.0]["panoptic_seg"][1]
    assert not found[1.0]["panoptic_seg"][1]
    assert (found[1.0]["panoptic_seg"][0] == 0).all()
    # instances are as many as ever, by what is left of their scores
    assert (found[1.0]["instances"].scores == 0).all()
    assert (found[1.0]["instances"].pred_classes < 3).all()


def test_no_word_is_left_for_the_background(small_model, image, monkeypatch) -> None:
    model = small_model(*TEXTS, ENSEMBLE, "False")
    monkeypatch.setattr("ovseg.modeling.classification.background_words", lambda words: [])
    assert (labels_of(model, image, reject=0.9) >= 0).all()


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan])
def test_a_strength_out_of_range_is_named(small_config, value: float) -> None:
    cfg = small_config()
    cfg.TEST.REJECT = value
    with pytest.raises(UserError, match=rf"^TEST\.REJECT {value} must lie in 0\.\.1"):
        check_config(cfg)
