"""The sum over masks, in tiles, against the plain formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.modeling.segmentation import class_score_bands, class_scores, label_map, resize_rows


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(5, 4, generator=generator), torch.rand(5, 13, 17, generator=generator)


@pytest.mark.parametrize("size", [(13, 17), (29, 40), (7, 9), (13, 30), (20, 17)])
def test_resizing_masks_equals_resizing_class_maps(parts, size):
    class_probs, masks = parts
    plain = torch.einsum("qc,qhw->chw", class_probs, masks)
    plain = F.interpolate(plain[None], size=size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(class_scores(class_probs, masks, size), plain)
    labels, scores = label_map(class_probs, masks, size)
    torch.testing.assert_close(scores, plain.amax(dim=0))
    assert (labels == plain.argmax(dim=0)).float().mean() > 0.99


def test_bands_cover_the_image_within_the_tile(parts):
    class_probs, masks = parts
    bands = list(class_score_bands(class_probs, masks, (29, 40), tile=600))
    assert [rows.start for rows, _ in bands] == [0, *(rows.stop for rows, _ in bands[:-1])]
    assert bands[-1][0].stop == 29
    assert len(bands) > 5
    assert all(band.numel() <= 600 for _, band in bands)
    whole = torch.cat([band for _, band in bands], dim=1)
    torch.testing.assert_close(whole, class_scores(class_probs, masks, (29, 40)))


def test_rows_are_those_of_interpolate(parts):
    masks = parts[1]
    plain = F.interpolate(masks[None], size=(30, 17), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(resize_rows(masks, 30, 4, 11), plain[:, 4:11])


def test_pixels_without_a_score_have_no_label():
    masks = torch.zeros(1, 2, 2)
    masks[0, 0, 1] = 1
    labels, scores = label_map(torch.tensor([[0.2, 0.7]]), masks, (2, 2))
    assert labels.tolist() == [[-1, 1], [-1, -1]]
    torch.testing.assert_close(scores, torch.tensor([[0.0, 0.7], [0.0, 0.0]]))
    labels, _ = label_map(torch.zeros(0, 3), torch.zeros(0, 2, 2), (4, 5))
    assert labels.shape == (4, 5)
    assert (labels == -1).all()
