"""Labels by ruling classes out, against the argmax over all classes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.modeling.best_class import SIDE, Tiles, best_classes, scores_of
from ovseg.modeling.segmentation import label_maps
from ovseg.structures import Classified


def smooth_masks(count: int, height: int, width: int) -> torch.Tensor:
    coarse = torch.randn(count, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    return F.interpolate(8 * coarse, size=(height, width), mode="bicubic")[:, 0].sigmoid()


def probabilities(queries: int, classes: int, sharpness: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (sharpness * torch.randn(queries, classes, generator=generator)).softmax(dim=1)


# sharp: mostly one contender a tile; flat: many; few classes: groups larger than all
@pytest.mark.parametrize(("classes", "sharpness"), [(40, 6.0), (40, 0.5), (40, 0.0), (3, 2.0)])
@pytest.mark.parametrize("size", [(40, 64), (37, 61), (5, 3)])
def test_result_is_that_of_the_argmax_over_all_classes(classes, sharpness, size):
    masks, probs = smooth_masks(12, *size), probabilities(12, classes, sharpness)
    scores = torch.einsum("qc,qhw->chw", probs.double(), masks.double())
    tiles = Tiles.cut(masks)
    found = best_classes(probs, tiles)
    labels = tiles.join(found)
    assert labels.shape == size
    won = scores.gather(0, labels[None])[0]
    torch.testing.assert_close(won, scores.amax(dim=0), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(tiles.join(scores_of(found, probs, tiles)), won.float())
    if sharpness:
        assert (labels == scores.argmax(dim=0)).float().mean() > 0.999
    else:  # all classes are equal: the first
        assert not labels.any()


def test_no_class_where_no_mask_is():
    masks = torch.zeros(1, 2 * SIDE, 2 * SIDE)
    masks[0, 3, 4] = 1
    masks[0, SIDE:, SIDE:] = 1
    labels = Tiles.cut(masks).join(best_classes(torch.tensor([[0.2, 0.7]]), Tiles.cut(masks)))
    expected = torch.where(masks[0] > 0, 1, -1)
    assert torch.equal(labels, expected)
    nothing = Tiles.cut(masks[:0])
    assert (best_classes(torch.zeros(0, 2), nothing) == -1).all()


@pytest.mark.parametrize("size", [(40, 64), (83, 50)])
def test_several_classifications_at_once_and_in_bands(monkeypatch, size):
    masks = smooth_masks(12, 40, 64)
    several = [probabilities(12, 40, sharpness) for sharpness in (1.0, 4.0)]
    alternatives = [Classified(probs, torch.arange(12)) for probs in several]
    whole = label_maps(alternatives, masks, size)
    resized = F.interpolate(masks[None], size=size, mode="bilinear")[0]
    for labels, probs in zip(whole, several, strict=True):
        plain = torch.einsum("qc,qhw->chw", probs, resized).argmax(dim=0)
        assert (labels == plain).float().mean() > 0.999
    monkeypatch.setattr("ovseg.modeling.segmentation.TILE", 40 * 64 * SIDE)
    assert (label_maps(alternatives, masks, size) == whole).float().mean() > 0.999
