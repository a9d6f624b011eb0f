"""Two ensemble weights: for classes of the training and for others."""

from __future__ import annotations

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from ovseg import UserError
from ovseg.data.own.registration import dataset_vocabulary
from ovseg.modeling.ensemble import ensemble, most_without_clip
from ovseg.modeling.seen_classes import SeenClasses, training_classes
from ovseg.vocabulary import Vocabulary

ADAPTER = "MODEL.CLIP_ADAPTER."
UNSEEN = f"{ADAPTER}CLIP_ENSEMBLE_WEIGHT_UNSEEN"


def test_a_class_is_seen_by_any_of_its_synonyms():
    seen = SeenClasses(["sky-other", "door-stuff", "Couch", "dining table"])
    words = ["sky", ["sofa", "couch"], "door, double door", "table", "skyscraper", "DINING TABLE"]
    assert seen.of_words(Vocabulary.of(words)) == [True, True, True, True, False, False, True]


def test_data_sets_of_one_list_have_its_classes_once():
    MetadataCatalog.get("list_plain").set(stuff_classes=["dog", "cat"])
    MetadataCatalog.get("list_own").set(class_words=[("dog", "hound"), ("cat",)])
    try:
        for names in (["list_plain", "list_own"], ["list_own", "list_plain"]):
            assert training_classes(names) == [("dog", "hound"), ("cat",)]
    finally:
        MetadataCatalog.remove("list_plain")
        MetadataCatalog.remove("list_own")


def test_names_are_those_of_the_vocabulary():
    # detectron2's ADE20K-150 has "window "
    MetadataCatalog.get("list_blanks").set(stuff_classes=["dog", "window "])
    try:
        assert training_classes(["list_blanks"]) == [("dog",), ("window",)]
        metadata = MetadataCatalog.get("ade20k_sem_seg_train")
        assert "window " in metadata.stuff_classes
        classes = training_classes(["ade20k_sem_seg_train"])
        words = dataset_vocabulary("ade20k_sem_seg_train").words
        assert [words_of[0] for words_of in classes] == list(words)
    finally:
        MetadataCatalog.remove("list_blanks")


def test_what_is_no_class_counts_as_seen():
    seen = SeenClasses(["dog"])
    assert seen.of_words(Vocabulary.of(["cat"])) == [False, True]  # "others"
    assert seen.of_words(Vocabulary(("cat", "dog"), (("cat",), ("dog",)), 0.1)) == [
        False, True, True
    ]  # fmt: skip


def test_each_class_has_its_weight():
    probs = torch.tensor([[0.25, 0.25], [0.09, 0.49]])
    clip = torch.tensor([[0.81, 0.01]])
    found = ensemble(probs, clip, torch.tensor([True, False]), torch.tensor([0.5, 1.0]))
    # sqrt(0.25 * 0.81) and CLIP's own; a mask that is not valid counts 1 for CLIP
    torch.testing.assert_close(found.class_probs, torch.tensor([[0.45, 0.01], [0.3, 1.0]]))
    alone = ensemble(probs, clip, torch.tensor([True, False]), torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(alone.class_probs[:, 0], probs[:, 0])  # of two, 0 is MaskFormer


def test_equal_weights_are_one_weight():
    probs = torch.rand(5, 4) / 4
    clip, valid = torch.rand(3, 4), torch.tensor([True, False, True, True, False])
    for weight in (0.3, 1.0):
        each = torch.full((4,), weight)
        one, several = (ensemble(probs, clip, valid, w).class_probs for w in (weight, each))
        torch.testing.assert_close(one, several)
        for one, several in zip(
            most_without_clip(probs, weight), most_without_clip(probs, each), strict=True
        ):
            torch.testing.assert_close(one, several)


def test_nothing_exceeds_what_is_known_before_clip():
    probs, weights = torch.rand(50, 4) / 4, torch.tensor([0.3, 0.8, 0.3, 0.8])
    _, best = most_without_clip(probs, weights)
    found = ensemble(probs, torch.rand(50, 4), torch.ones(50, dtype=torch.bool), weights)
    assert (found.class_probs.amax(dim=1) <= best + 1e-6).all()


@pytest.fixture
def trained_on():
    """A registered training set of two classes."""
    name = "seen_classes_train"
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(stuff_classes=["wall", "traffic light"])
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.mark.parametrize("extra", [[], [f"{ADAPTER}CROPS", "visible"]])
def test_the_model_weighs_by_the_names_of_its_training(small_model, seeded, trained_on, extra):
    common = ["DATASETS.TRAIN", f"('{trained_on}',)", f"{ADAPTER}MASK_THR", "0.3", *extra]
    two = small_model(*common, f"{ADAPTER}CLIP_ENSEMBLE_WEIGHT", "0.2", UNSEEN, "0.9")
    words = ["traffic light", "sky", ["brick", "wall"], "dog"]
    inputs = {"image": seeded.image(64, 96, 1), "class_names": words}
    with torch.inference_mode():
        regions = two.encode([inputs])[0]
        text = two.text(Vocabulary.of(words))
        found = two.classify(regions, text)
        of_words = dict(zip(text.vocabulary.words, found.class_probs.T, strict=True))
        for weight, names in ((0.2, ("traffic light", "brick", "wall")), (0.9, ("sky", "dog"))):
            expected = two.classify(regions, text, weight)
            if extra:  # which proposals are looked at depends on the weights
                continue
            for name, probs in zip(text.vocabulary.words, expected.class_probs.T, strict=True):
                assert torch.allclose(of_words[name], probs) == (name in names)
    assert torch.isfinite(found.class_probs).all()


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ([UNSEEN, "1.5"], r"CLIP_ENSEMBLE_WEIGHT_UNSEEN 1\.5 must lie in 0\.\.1, or be -1"),
        ([UNSEEN, "-0.5"], r"WEIGHT_UNSEEN -0\.5 must lie in 0\.\.1"),
        (
            [UNSEEN, "0.5", "DATASETS.TRAIN", "('mine',)"],
            "DATASETS.TRAIN: the classes of 'mine' are not known",
        ),
        ([UNSEEN, "0.5", "DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty"),
    ],
)
def test_mistakes(small_model, opts, message):
    with pytest.raises(UserError, match=message):
        small_model(*opts)
