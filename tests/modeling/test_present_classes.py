"""Classes that an image does not show are dropped, and the others decided again."""

from __future__ import annotations

import pytest
import torch

from ovseg import UserError
from ovseg.modeling.present_classes import among_all, only, present_classes
from ovseg.structures import Classified, TextEmbeddings
from ovseg.vocabulary import Vocabulary

AREA = "TEST.MIN_CLASS_AREA"
DEMO = "ovseg_swinB_vitL_demo.yaml"
WORDS = ["wall", "sky", "traffic light", "dog", "sea", "grass"]


def test_the_pixels_that_a_class_wins_count_for_it():
    vocabulary = Vocabulary.of([["dog", "puppy"], "cat", "owl"])
    masks = torch.zeros(3, 4, 4)
    masks[0, :2], masks[1, 2], masks[2, 3] = 1, 1, 1  # 8, 4 and 4 of 16 pixels
    probs = torch.tensor(
        [[0.0, 0.9, 0.1, 0.0], [0.2, 0.1, 0.6, 0.1], [0.5, 0.1, 0.1, 0.3]]  # puppy, cat, dog
    )
    classified = Classified(probs, torch.arange(3))
    assert present_classes(classified, masks, vocabulary, 0.0) == [0, 1]
    assert present_classes(classified, masks, vocabulary, 0.25) == [0]  # 12 of 16; cat has 4
    assert present_classes(classified, masks, vocabulary, 0.75) == []
    some = Classified(probs[1:], torch.tensor([1, 2]))
    assert present_classes(some, masks, vocabulary, 0.2) == [0, 1]


def test_pixels_that_no_mask_covers_count_for_no_class():
    masks = torch.zeros(1, 4, 4)
    masks[0, 0] = 1
    classified = Classified(torch.tensor([[0.1, 0.9]]), torch.arange(1))
    vocabulary = Vocabulary.of(["dog", "cat"])
    assert present_classes(classified, masks, vocabulary, 0.0) == [1]


def test_background_is_no_class():
    vocabulary = Vocabulary(("dog", "cat"), (("dog",), ("cat",)), 0.5)
    masks = torch.eye(2).view(2, 1, 2)
    probs = torch.tensor([[0.1, 0.2, 0.9], [0.1, 0.2, 0.0]])
    assert present_classes(Classified(probs, torch.arange(2)), masks, vocabulary, 0.0) == [1]


def test_fewer_classes_and_all_again():
    vocabulary = Vocabulary(("a", "b", "c"), (("a",), ("b", "b2"), ("c",)), 0.5)
    rows = torch.arange(5.0)[:, None]  # of the four words, and of "no object"
    fewer = only(TextEmbeddings(vocabulary, rows, rows[:2]), [1, 2])
    assert fewer.vocabulary.words == ("b", "b2", "c")
    assert fewer.features.flatten().tolist() == [1, 2, 3, 4]
    assert fewer.background is not None
    probs = torch.tensor([[0.1, 0.2, 0.3, 0.4]])  # the last is the background
    spread = among_all(Classified(probs, torch.tensor([7])), [1, 2], vocabulary)
    torch.testing.assert_close(spread.class_probs, torch.tensor([[0, 0.1, 0.2, 0.3, 0.4]]))
    assert spread.queries.tolist() == [7]


@pytest.mark.parametrize("extra", [[], ["MODEL.CLIP_ADAPTER.CROPS", "visible"]])
def test_the_rest_is_decided_as_if_nothing_else_had_been_named(small_model, seeded, extra):
    opts = ["MODEL.CLIP_ADAPTER.MASK_THR", "0.3", *extra]
    plain, again = small_model(*opts), small_model(*opts, AREA, "0.01")
    inputs = {"image": seeded.image(64, 96, 1), "class_names": WORDS}
    with torch.inference_mode():
        regions = plain.encode([inputs])[0]
        text = plain.text(plain.vocabulary(inputs))
        first = plain.classify(regions, text)
        present = present_classes(first, regions.masks, text.vocabulary, 0.01)
        assert 1 < len(present) < len(WORDS)
        fewer = {**inputs, "class_names": [WORDS[label] for label in present]}
        expected = plain([fewer])[0]["sem_seg"]
        found = again([inputs])[0]["sem_seg"]
    torch.testing.assert_close(found[present], expected)
    assert found.sum() == pytest.approx(float(found[present].sum()))


def test_where_one_class_is_left_all_else_is_dropped(small_model, seeded):
    inputs = {"image": seeded.image(64, 96, 1), "class_names": WORDS}
    with torch.inference_mode():
        plain = small_model()([inputs])[0]["sem_seg"]
        shares = plain.argmax(dim=0).flatten().bincount(minlength=len(plain)) / plain[0].numel()
        second, first = shares.sort().values[-2:].tolist()
        assert 0 < second < first  # there is something to drop
        (found,) = small_model(AREA, str((first + second) / 2))([inputs])
        nothing_left = small_model(AREA, "0.999")([inputs])[0]["sem_seg"]
    best = int(shares.argmax())
    expected = torch.zeros_like(plain)
    expected[best] = plain[best]
    torch.testing.assert_close(found["sem_seg"], expected)
    torch.testing.assert_close(nothing_left, plain)


@pytest.mark.parametrize(
    ("base", "area", "message"),
    [
        ("ovseg_swinB_vitL_bs32_120k.yaml", "1.5", r"TEST.MIN_CLASS_AREA 1\.5 must lie in 0\.\.1"),
        (DEMO, "0.1", "OVSegDEMO takes the best proposal of each class; set MODEL.META_ARCH"),
    ],
)
def test_mistakes(small_model, base, area, message):
    with pytest.raises(UserError, match=message):
        small_model(AREA, area, base=base)
