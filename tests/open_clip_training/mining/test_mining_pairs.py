"""Who gets which proposal, and ground truth as pairs."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_world import CONFIGS
from torch import Tensor

from open_clip_training.mining.pairs import (
    KnownNouns,
    Rules,
    fill_colour,
    ground_truth_pairs,
    mine,
)
from ovseg.config import setup_cfg
from ovseg.structures import ClipClasses, CropFeatures, Regions, TextEmbeddings
from ovseg.vocabulary import Vocabulary

ANYTHING = Rules(min_area=0.0, min_score=0.0, min_objectness=0.0)


class Proposer:
    """Stands for a trained OVSeg: masks and CLIP's probabilities are given by hand."""

    mask_threshold, crop_encoder = 0.5, SimpleNamespace(expand_ratio=1.0)

    def __init__(self, masks: Any, clip: Any, objectness: Any = None) -> None:
        self.masks = torch.tensor(masks, dtype=torch.float32)
        self.clip = torch.tensor(clip, dtype=torch.float32)
        ones = [1.0] * len(self.masks)
        self.objectness = torch.tensor(ones if objectness is None else objectness)[:, None]

    def propose(self, inputs: list[dict[str, Any]]) -> list[Regions]:
        return [Regions(inputs[0]["image"], self.masks)]

    def text(self, vocabulary: Vocabulary) -> TextEmbeddings:
        self.words = list(vocabulary.words)
        return TextEmbeddings(vocabulary, torch.zeros(len(vocabulary.words) + 1, 1))

    def classify_queries(self, regions: Regions, text: TextEmbeddings) -> Tensor:
        return self.objectness

    def encode_crops(self, regions: Regions) -> CropFeatures:
        valid = (regions.masks > 0.5).flatten(1).any(dim=1)
        return CropFeatures(self.clip[valid], valid)

    def classify_crops(self, crops: CropFeatures, text: TextEmbeddings) -> ClipClasses:
        return ClipClasses(crops.features, crops.valid)


# a 4 x 6 picture: a cat on the left, a dog on the right, their floor below; one empty proposal
LEFT = [[0, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0] * 6, [0] * 6]
RIGHT = [[0] * 6, [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1], [0] * 6]
BELOW = [[0] * 6, [0] * 6, [0] * 6, [1] * 6]
EMPTY = [[0] * 6] * 4
WORDS = ["cat", "dog", "floor", "tree"]
PICTURE = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)


def test_every_noun_takes_the_proposal_that_fits_it_best() -> None:
    clip = [[0.1, 0.2, 0.6, 0.1], [0.9, 0.9, 0.9, 0.9], [0.2, 0.7, 0.1, 0], [0.8, 0.1, 0.1, 0]]
    model = Proposer([BELOW, EMPTY, RIGHT, LEFT], clip)
    known = KnownNouns(model, WORDS)
    pairs = mine(model, PICTURE, ["dog", "cat", "floor"], known, ANYTHING, Counter())
    assert [(p.noun, round(p.score, 2), p.box) for p in pairs] == [
        ("dog", 0.7, (4, 1, 6, 3)),
        ("cat", 0.8, (0, 0, 2, 2)),
        ("floor", 0.6, (0, 3, 6, 4)),
    ]
    assert model.words == WORDS
    cat = pairs[1]
    np.testing.assert_array_equal(cat.mask, [[False, True], [True, True]])
    np.testing.assert_array_equal(cat.raw, PICTURE[:2, :2])
    expected = PICTURE[:2, :2].copy()
    expected[0, 0] = (1, 2, 3)
    np.testing.assert_array_equal(cat.filled((1, 2, 3)), expected)


def test_a_proposal_serves_one_noun_and_rules_leave_out() -> None:
    # no proposal shows the tree: its best one is the cat's
    clip = [[0.7, 0.1, 0.0, 0.2], [0.1, 0.8, 0.1, 0.0]]
    nouns = ["tree", "cat", "dog"]

    def mined(rules: Rules, objectness: list[float]) -> tuple[list[str], Counter[str]]:
        counts: Counter[str] = Counter()
        model = Proposer([LEFT, RIGHT], clip, objectness)
        pairs = mine(model, PICTURE, nouns, KnownNouns(model, WORDS), rules, counts)
        return [pair.noun for pair in pairs], counts

    kept, counts = mined(ANYTHING, [1.0, 1.0])
    assert kept == ["cat", "dog"]
    assert counts == {"nouns whose region fits another noun better": 1}
    kept, counts = mined(Rules(0, 0.75, 0), [1.0, 1.0])
    assert kept == ["dog"]
    assert counts["nouns below the minimum score"] == 1
    # without the dog's proposal the cat's is everybody's best
    assert mined(Rules(0, 0, 0.5), [0.9, 0.1])[0] == ["cat"]
    # each covers 3 of 24 pixels
    assert mined(Rules(3 / 24 + 0.01, 0, 0), [1.0, 1.0]) == (
        [],
        {"nouns of images without a usable proposal": 3},
    )


@pytest.mark.parametrize(
    ("opts", "colour"),
    [
        ([], (123, 117, 104)),
        (["MASK_FILL", "zero"], (0, 0, 0)),
        # trained with a mean of 0.5
        (["CLIP_MODEL_NAME", "ViT-L-14", "CLIP_PRETRAINED", "laion2b_s32b_b82k"], (128, 128, 128)),
    ],
)
def test_the_background_is_that_of_inference(opts: list[str], colour: tuple[int, ...]) -> None:
    keys = [part if i % 2 else f"MODEL.CLIP_ADAPTER.{part}" for i, part in enumerate(opts)]
    cfg = setup_cfg(CONFIGS / "ovseg_R101c_vitB_bs32_120k.yaml", keys)
    assert fill_colour(cfg) == colour


def test_ground_truth_makes_one_pair_a_class() -> None:
    labels = np.array([[0, 0, 255, 7], [1, 0, 255, 255], [1, 1, 1, 255]])
    image = np.random.default_rng(0).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    counts: Counter[str] = Counter()
    pairs = ground_truth_pairs(
        image, labels, ["door, double door", "wall"], 255, ANYTHING, counts, 1.0
    )
    assert [(p.noun, p.score, p.box) for p in pairs] == [
        ("door, double door", 1.0, (0, 0, 2, 2)),
        ("wall", 1.0, (0, 1, 3, 3)),
    ]
    np.testing.assert_array_equal(pairs[0].mask, [[True, True], [False, True]])
    np.testing.assert_array_equal(pairs[1].raw, image[1:3, :3])
    assert counts == {"unknown labels": 1}
    large = ground_truth_pairs(image, labels, ["a", "b"], 255, Rules(0.3, 0, 0), counts, 1.0)
    assert [p.noun for p in large] == ["b"]
