"""Fewer crops: the choice against loops over pixels, and what the model does with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ovseg import OVSeg
from ovseg.modeling.crop_choice import CropChoice, thinned
from ovseg.structures import Classified, CropFeatures
from ovseg.vocabulary import Vocabulary

WORDS = ["wall", "sky", "traffic light"]
VISIBLE = ("MODEL.CLIP_ADAPTER.CROPS", "visible")

# 2 x 4 pixels: two halves, a weaker copy of the left one, and a corner of the right one
MASKS = torch.tensor(
    [
        [[0.9, 0.8, 0.1, 0.0], [0.9, 0.9, 0.1, 0.0]],
        [[0.0, 0.1, 0.9, 0.9], [0.0, 0.1, 0.8, 0.9]],
        [[0.8, 0.7, 0.1, 0.0], [0.8, 0.8, 0.1, 0.0]],
        [[0.0, 0.0, 0.0, 0.95], [0.0, 0.0, 0.0, 0.1]],
    ]
)


def shown(choice: CropChoice, masks: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """The proposals that can show."""
    return choice.areas(masks, strength) > choice.min_area


def test_hidden_proposals_are_left_out_by_hand() -> None:
    equal = torch.ones(4)
    assert shown(CropChoice(), MASKS, equal).tolist() == [True, True, False, True]
    # the last one is largest at one pixel of eight
    assert shown(CropChoice(min_area=0.12), MASKS, equal).tolist() == [True, True, False, True]
    assert shown(CropChoice(min_area=0.13), MASKS, equal).tolist() == [True, True, False, False]
    # 0.8 / 0.9 is nearly the largest
    assert shown(CropChoice(tolerance=0.85), MASKS, equal).tolist() == [True] * 4
    # the copy is more likely to be anything
    strength = torch.tensor([0.5, 1.0, 1.0, 0.0])
    assert shown(CropChoice(), MASKS, strength).tolist() == [False, True, True, False]
    assert shown(CropChoice(), MASKS[:0], equal[:0]).tolist() == []


def test_empty_masks_neither_show_nor_lend() -> None:
    masks = MASKS.clone()
    masks[[0, 2]] = 0  # where nothing is, nothing is largest
    assert shown(CropChoice(), masks, torch.ones(4)).tolist() == [False, True, False, True]
    lent = CropChoice(borrow_iou=0.2).lenders(masks > 0.5, torch.tensor([True, True, False, False]))
    assert lent.tolist() == [0, 1, -1, 1]


def test_pixels_of_very_long_images_are_looked_at() -> None:
    for size in ((3, 2560), (2560, 3), (1, 5000)):
        masks = torch.zeros(2, *size)
        masks[0], masks[1, :, : size[1] // 2] = 0.5, 0.9
        if size[1] == 3:
            masks[1] = 0.0
            masks[1, : size[0] // 2] = 0.9
        areas = CropChoice().areas(masks, torch.ones(2))
        torch.testing.assert_close(areas, torch.tensor([0.5, 0.5]), atol=0.01, rtol=0)
    whole = torch.arange(6.0 * 7).view(1, 6, 7)
    torch.testing.assert_close(thinned(whole), whole.flatten(1))
    assert thinned(whole, 3).tolist() == [[8, 10, 12, 22, 24, 26, 36, 38, 40]]


def test_choice_equals_a_loop_over_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    masks, strength = torch.rand(7, 9, 11, generator=generator), torch.rand(7, generator=generator)
    choice = CropChoice(tolerance=0.9, min_area=0.1)
    counts = [0] * 7
    for y in range(9):
        for x in range(11):
            values = [float(masks[q, y, x] * strength[q]) for q in range(7)]
            for q in range(7):
                counts[q] += values[q] >= 0.9 * max(values)
    expected = [count / 99 > 0.1 for count in counts]
    assert shown(choice, masks, strength).tolist() == expected
    assert 0 < sum(expected) < 7


def test_a_second_round_takes_what_could_change_pixels() -> None:
    generator = torch.Generator().manual_seed(1)
    masks, probs = torch.rand(5, 6, 8, generator=generator), torch.rand(3, 4, generator=generator)
    potential = torch.tensor([1.0, 1.0, 0.3, 1.0, 0.9])
    queries = torch.tensor([0, 1, 3])
    chosen = torch.tensor([True, True, False, True, False])
    share = []
    for q in range(5):
        could = 0
        for y in range(6):
            for x in range(8):
                scores = sorted(
                    sum(float(probs[k, c] * masks[queries[k], y, x]) for k in range(3))
                    for c in range(4)
                )
                could += float(masks[q, y, x]) * float(potential[q]) / 2 > scores[-1] - scores[-2]
        share.append(could / 48)
    assert share[2] < share[4]
    classified = Classified(probs, queries)
    for limit, expected in (
        (share[4] + 0.01, []), ((share[2] + share[4]) / 2, [4]), (share[2] - 0.01, [2, 4]),
    ):  # fmt: skip
        found = CropChoice(second_round=limit).more(masks, potential, classified, chosen)
        assert found.nonzero()[:, 0].tolist() == expected
    assert not CropChoice().more(masks, potential, classified, chosen).any()


def test_features_are_lent_to_masks_that_overlap() -> None:
    binary = MASKS > 0.5
    chosen = torch.tensor([True, True, False, False])
    # the copy equals the left half; the corner is a quarter of the right one
    assert CropChoice(borrow_iou=1.0).lenders(binary, chosen).tolist() == [0, 1, -1, -1]
    assert CropChoice(borrow_iou=0.9).lenders(binary, chosen).tolist() == [0, 1, 0, -1]
    assert CropChoice(borrow_iou=0.2).lenders(binary, chosen).tolist() == [0, 1, 0, 1]
    none = torch.zeros(4, dtype=torch.bool)
    assert CropChoice(borrow_iou=0.2).lenders(binary, none).tolist() == [-1] * 4


def test_features_are_encoded_when_asked_for_and_kept() -> None:
    calls: list[list[int]] = []

    def encode(places: torch.Tensor) -> torch.Tensor:
        calls.append(places.tolist())
        return torch.stack([places.float(), places.float() ** 2], dim=1)

    valid = torch.tensor([True, False, True, True])
    crops = CropFeatures.on_demand(valid, torch.zeros(0, 2), encode)
    assert not crops.encoded.any()
    with torch.inference_mode():
        assert crops.of(torch.tensor([2, 2])).tolist() == [[2, 4], [2, 4]]
    assert crops.of(torch.tensor([3, 2])).tolist() == [[3, 9], [2, 4]]
    assert crops.features.tolist() == [[0, 0], [2, 4], [3, 9]]
    assert calls == [[2], [3], [0]]
    assert crops.encoded.tolist() == valid.tolist()


@pytest.fixture(scope="module")
def models(small_model) -> tuple[OVSeg, OVSeg]:
    """A model that shows CLIP all proposals, and one that shows it those that can be seen."""
    return small_model(), small_model(*VISIBLE)


@pytest.fixture
def inputs(seeded) -> dict:
    return {"image": seeded.image(64, 96, 1), "class_names": WORDS, "output": "labels"}


@torch.inference_mode()
@pytest.mark.parametrize("weight", [0.0, 0.65, 1.0])
def test_left_out_proposals_drop_out_of_the_ensemble(models, inputs, weight) -> None:
    full, fewer = models
    text = full.text(Vocabulary.of(WORDS))
    regions = full.encode([inputs])[0]
    encoded = fewer.encode([inputs])[0]
    assert not encoded.crops.encoded.any()
    everything = full.classify(regions, text, weight)
    found = fewer.classify(encoded, text, weight)
    strength = full.classify_queries(regions, text).sum(dim=1) ** (1 - weight if weight else 0)
    values = regions.masks * strength[:, None, None]
    seen = set((values == values.amax(dim=0)).flatten(1).any(dim=1).nonzero()[:, 0].tolist())
    valid = set(regions.crops.valid.nonzero()[:, 0].tolist())
    taken = seen if weight == 0 else seen | (set(range(len(values))) - valid)
    assert set(found.queries.tolist()) == taken & set(everything.queries.tolist())
    assert set(encoded.crops.encoded.nonzero()[:, 0].tolist()) == seen & valid
    rows = torch.isin(everything.queries, found.queries)
    torch.testing.assert_close(found.class_probs, everything.class_probs[rows])


@torch.inference_mode()
def test_one_encoded_image_serves_any_words(models, inputs) -> None:
    fewer = models[1]
    encoded = fewer.encode([inputs])[0]
    for words in (WORDS, ["dog"], [["cat", "kitten"], "grass"], WORDS):
        wanted = {**inputs, "class_names": words}
        again = fewer.segment(wanted, encoded)
        assert torch.equal(again["labels"], fewer([wanted])[0]["labels"])
    before = encoded.crops.encoded.clone()
    fewer.segment(inputs, encoded, ensemble_weight=0.3)
    assert (encoded.crops.encoded >= before).all()


@torch.inference_mode()
def test_everything_chosen_is_the_published_answer(models, small_model, inputs) -> None:
    full = models[0]
    lenient = small_model(*VISIBLE, "MODEL.CLIP_ADAPTER.CROPS_TOLERANCE", "0.0")
    found, expected = lenient([inputs])[0], full([inputs])[0]
    assert torch.equal(found["labels"], expected["labels"])
    torch.testing.assert_close(found["scores"], expected["scores"])


@torch.inference_mode()
def test_borrowed_features_are_those_of_the_overlapping_proposal(models, inputs) -> None:
    full, fewer = models
    text = full.text(Vocabulary.of(WORDS))
    regions = full.propose([inputs])[0]
    # a copy of each proposal, a little weaker, with other class embeddings
    doubled = replace(
        regions,
        masks=torch.cat([regions.masks, 0.999 * regions.masks]),
        embeddings=torch.cat([regions.embeddings, regions.embeddings.flip(0)]),
    )
    count = len(regions.masks)
    choice, fewer.crop_choice = fewer.crop_choice, replace(fewer.crop_choice, borrow_iou=0.9)
    encoded = fewer.encode_regions(doubled)
    found = fewer.classify(encoded, text, 1.0)
    fewer.crop_choice = choice
    assert not encoded.crops.encoded[count:].any()
    probs = dict(zip(found.queries.tolist(), found.class_probs, strict=True))
    lenders = encoded.crops.encoded.nonzero()[:, 0].tolist()
    assert lenders
    for place in lenders:
        torch.testing.assert_close(probs[place + count], probs[place])


@pytest.mark.parametrize(
    ("key", "value"),
    [("CROPS", "some"), ("CROPS_TOLERANCE", "1.5"), ("CROPS_BORROW_IOU", "-0.5")],
)
def test_settings_that_cannot_be_are_named(small_config, key, value) -> None:
    from ovseg import UserError
    from ovseg.config import check_config

    with pytest.raises(UserError, match=key):
        check_config(small_config(f"MODEL.CLIP_ADAPTER.{key}", value))


@torch.inference_mode()
def test_features_are_lent_at_the_threshold_of_the_crops(models, inputs, monkeypatch) -> None:
    """A mask that is empty at their threshold has no crop whose features it could lend."""
    fewer = models[1]
    text = fewer.text(Vocabulary.of(WORDS))
    regions = fewer.propose([inputs])[0]
    low, high = fewer.mask_threshold, (fewer.mask_threshold + 1) / 2
    masks, embeddings = regions.masks.clone(), regions.embeddings.clone()
    embeddings[-2:] = embeddings[0]
    # at the model's own threshold two equal masks; the last has a pixel above the other one, too,
    # and can nowhere be seen
    masks[-2:] = 0
    masks[-2, :20, :30], masks[-1, :20, :30] = (low + high) / 2 + 0.01, (low + high) / 2
    masks[-1, 0, 0], masks[0, 0, 0] = high + 0.01, 1.0
    changed = replace(regions, masks=masks, embeddings=embeddings)
    monkeypatch.setattr(fewer, "crop_choice", replace(fewer.crop_choice, borrow_iou=0.9))
    encoded = fewer.encode_regions(changed, high)
    assert encoded.crops.valid[-2:].tolist() == [False, True]
    found = fewer.classify(encoded, text, 0.65)
    assert len(masks) - 1 not in found.queries.tolist()
    assert not encoded.crops.encoded[-2:].any()
    # at the model's own threshold it borrows from the other one
    own = fewer.classify(fewer.encode_regions(changed), text, 0.65)
    assert len(masks) - 1 in own.queries.tolist()
