"""The runtime's NumPy code against the PyTorch code that it stands for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.data import mapper
from ovseg.modeling import crops as torch_crops
from ovseg.modeling import ensemble as torch_ensemble
from ovseg.modeling import reject as torch_reject
from ovseg.modeling import segmentation as torch_segmentation
from ovseg.modeling.proposals import masks as torch_masks
from ovseg.runtime import classify, crops, resize, segmentation
from ovseg.structures import Classified, PartialScores
from ovseg.vocabulary import Vocabulary

SIZES = [
    ((1, 1), (3, 5)),
    ((7, 5), (7, 5)),
    ((40, 3), (16, 16)),
    ((9, 11), (32, 20)),
    ((2, 1), (1, 4)),
]


def smooth_masks(count: int, height: int, width: int) -> torch.Tensor:
    torch.manual_seed(0)
    coarse = torch.randn(1, count, max(height // 8, 2), max(width // 8, 2)) * 6
    return F.interpolate(coarse, size=(height, width), mode="bilinear")[0].sigmoid()


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_resizing(mode: str, old: tuple[int, int], new: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *old, generator=torch.Generator().manual_seed(1)) * 255
    expected = F.interpolate(image, size=new, mode=mode)[0].numpy()
    found = getattr(resize, mode)(image[0].numpy(), new)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-3)  # of 255


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_resizing_with_smoothing(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *old, generator=torch.Generator().manual_seed(1)) * 255
    expected = F.interpolate(image, size=new, mode="bicubic", antialias=True)[0].numpy()
    found = resize.bicubic_smoothed(image[0].numpy(), new)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_an_image_may_keep_its_size() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert resize.resize_short_side(image, 0, 10) is image
    np.testing.assert_array_equal(mapper.resize_short_side(image, 0, 10), image)


def test_nearest_at_every_size() -> None:
    line = torch.arange(37.0).view(1, 1, 1, -1)
    for new in range(1, 120):
        expected = F.interpolate(line, size=(1, new), mode="nearest")[0].numpy()
        np.testing.assert_array_equal(resize.nearest(line[0].numpy(), (1, new)), expected)


@pytest.mark.parametrize("size", [(60, 84), (84, 60), (160, 160), (1, 1), (2, 3000), (161, 700)])
def test_a_picture_is_resized_as_for_the_model(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = mapper.resize_short_side(image, 160, 640)
    np.testing.assert_array_equal(resize.resize_short_side(image, 160, 640), expected)


@pytest.mark.parametrize("matting", [False, True])
@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_crops(matting: bool, ratio: float) -> None:
    masks = smooth_masks(5, 40, 56)
    masks[1] = 0.2  # none above the threshold
    masks[2] = 0.2
    masks[2, 39, 55] = 0.9  # a single pixel
    image = torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8)
    options = dict(
        size=(32, 24), threshold=0.5, fill=(1.0, 2.0, 3.0), expand_ratio=ratio, matting=matting
    )
    expected = torch_crops.cut_crops(image, masks, **options)
    found = crops.cut_crops(image.numpy(), masks.numpy(), **options)
    assert found.valid.tolist() == expected.valid.tolist() == [True, False, True, True, True]
    np.testing.assert_allclose(found.images, expected.images.numpy(), atol=1e-3)
    np.testing.assert_array_equal(found.masks, expected.masks.numpy())


def test_no_valid_mask_gives_no_crop() -> None:
    found = crops.cut_crops(
        np.zeros((3, 4, 4), np.uint8), np.zeros((2, 4, 4), np.float32),
        size=(8, 8), threshold=0.5, fill=(0, 0, 0),
    )  # fmt: skip
    assert found.images.shape == (0, 3, 8, 8)
    assert found.masks.shape == (0, 1, 8, 8)
    assert not found.valid.any()


def test_image_masks() -> None:
    logits = torch.randn(4, 8, 12) * 40  # far enough for exp to overflow
    expected = torch_masks.image_masks(logits, (30, 41), (32, 48)).numpy()
    found = segmentation.image_masks(logits.numpy(), (30, 41), (32, 48))
    np.testing.assert_allclose(found, expected, atol=1e-5)


VOCABULARIES = [
    Vocabulary.of(["dog"]), Vocabulary.of(["dog", "grass"]),
    Vocabulary.of([["dog", "puppy"], "grass", ["sky", "clouds", "air"]]),
]  # fmt: skip


def case(vocabulary: Vocabulary, background: int | None) -> tuple[classify.Regions, classify.Text]:
    generator = np.random.default_rng(0)

    def unit(rows: int) -> np.ndarray:
        return classify.normalise(generator.normal(size=(rows, 16)).astype(np.float32))

    text = classify.Text(
        unit(len(vocabulary.class_of_word) - (vocabulary.reject > 0) + 1),
        None if background is None else unit(background),
    )
    valid = np.array([True, False, True, True, False, True])
    regions = classify.Regions(
        np.zeros((3, 40, 56), np.uint8),
        smooth_masks(6, 40, 56).numpy(),
        7 * unit(6),
        unit(4),
        valid,
    )
    return regions, text


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=["one", "two", "synonyms"])
@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("background", [None, 0, 3])
def test_classification(vocabulary: Vocabulary, weight: float, background: int | None) -> None:
    if background is not None:
        vocabulary = replace(vocabulary, reject=0.4)
    regions, text = case(vocabulary, background)

    def logits(embeddings: np.ndarray, features: np.ndarray) -> torch.Tensor:
        return 100 * torch.from_numpy(classify.normalise(embeddings) @ features.T)

    queries, of_crops = (
        logits(values, text.features) for values in (regions.embeddings, regions.features)
    )
    if text.background is None:
        probs, clip = queries.softmax(-1)[:, :-1], of_crops[:, :-1].softmax(-1)
    else:
        probs = queries.softmax(-1)
        clip = torch_reject.probabilities_with_background(
            of_crops[:, :-1], logits(regions.features, text.background)
        )
    expected = torch_ensemble.ensemble(probs, clip, torch.from_numpy(regions.valid), weight)
    found = classify.classify(regions, text, 100.0, weight)
    np.testing.assert_array_equal(found.queries, expected.queries.numpy())
    np.testing.assert_allclose(found.class_probs, expected.class_probs.numpy(), atol=2e-5)
    if vocabulary.reject:
        expected = torch_reject.weigh_background(expected, 0.4)
        found = classify.weigh_background(found, 0.4)
        np.testing.assert_allclose(found.class_probs, expected.class_probs.numpy(), atol=2e-5)


def test_maskformer_alone_has_the_general_words() -> None:
    regions, text = case(replace(VOCABULARIES[1], reject=0.4), 3)
    alone = replace(regions, features=None, valid=None)
    unit = torch.from_numpy(100 * classify.normalise(regions.embeddings))
    expected = torch_reject.probabilities_with_background(
        (unit @ torch.from_numpy(text.features.T))[:, :-1],
        unit @ torch.from_numpy(text.background.T),
    )
    found = classify.classify(alone, text, 100.0, 0.7)
    np.testing.assert_allclose(found.class_probs, expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=["one", "two", "synonyms"])
def test_best_proposals_and_labels(vocabulary: Vocabulary) -> None:
    probs = torch.rand(6, len(vocabulary.class_of_word), generator=torch.Generator().manual_seed(2))
    masks = (smooth_masks(6, 20, 28) > 0.5).float()
    masks[3] = 0
    queries = torch.tensor([0, 2, 3, 5])
    given = Classified(probs[queries], queries)
    expected = torch_ensemble.best_proposals(given, masks, vocabulary)
    found = classify.best_proposals(
        classify.Classified(given.class_probs.numpy(), queries.numpy()), masks.numpy(), vocabulary
    )
    np.testing.assert_array_equal(found.queries, expected.queries.numpy())
    np.testing.assert_array_equal(found.class_probs, expected.class_probs.numpy())
    words = torch.tensor([[-1, 0], [len(vocabulary.class_of_word) - 1, 0]])
    np.testing.assert_array_equal(
        classify.class_labels(words.numpy(), vocabulary), vocabulary.class_labels(words).numpy()
    )


@pytest.mark.parametrize("size", [(20, 28), (61, 50), (9, 100)])
@pytest.mark.parametrize("count", [0, 1, 6])
def test_label_map(size: tuple[int, int], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation, "_TILE", 4000)  # several bands
    masks = smooth_masks(6, 20, 28)[:count]
    masks[:, :5, :6] = 0
    probs = torch.rand(count, 9, generator=torch.Generator().manual_seed(3))
    expected, best = torch_segmentation.label_map([PartialScores(probs, masks)], size)
    labels, scores = segmentation.label_map(probs.numpy(), masks.numpy(), size)
    assert (labels == expected.numpy()).mean() > 0.999
    np.testing.assert_allclose(scores, best.numpy(), atol=1e-5)
    if not count:
        assert (labels == -1).all()
