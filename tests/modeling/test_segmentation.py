"""The sum over masks, in tiles, against the plain formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.modeling.segmentation import label_map, word_score_bands, word_scores
from ovseg.structures import PartialScores


@pytest.fixture
def piece() -> PartialScores:
    generator = torch.Generator().manual_seed(0)
    return PartialScores(
        torch.rand(5, 4, generator=generator), torch.rand(5, 13, 17, generator=generator)
    )


def plain_scores(piece: PartialScores, size: tuple[int, int]) -> torch.Tensor:
    """Class maps of the whole image, zero where the piece has no masks, then resized."""
    height, width = piece.canvas or piece.masks.shape[1:]
    (top, left), (h, w) = piece.origin, piece.masks.shape[1:]
    masks = F.pad(piece.masks, (left, width - left - w, top, height - top - h))
    scores = torch.einsum("qc,qhw->chw", piece.class_probs, masks)
    return F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("size", [(13, 17), (29, 40), (7, 9), (13, 30), (20, 17)])
def test_resizing_masks_equals_resizing_class_maps(
    piece: PartialScores, size: tuple[int, int]
) -> None:
    plain = plain_scores(piece, size)
    torch.testing.assert_close(word_scores([piece], size), plain)
    labels, scores = label_map([piece], size)
    torch.testing.assert_close(scores, plain.amax(dim=0))
    assert (labels == plain.argmax(dim=0)).float().mean() > 0.99


@pytest.mark.parametrize("size", [(31, 44), (29, 50), (31, 60), (12, 11), (75, 44), (90, 101)])
def test_pieces_add_up_where_they_lie(piece: PartialScores, size: tuple[int, int]) -> None:
    pieces = [piece] + [
        PartialScores(torch.rand(k, 4), torch.rand(k, h, w), (31, 44), origin)
        for k, h, w, origin in [
            (3, 31, 44, (0, 0)),  # a look of another size
            (4, 13, 17, (0, 0)),  # tiles: at two corners, inside, a row and a column
            (0, 13, 17, (5, 5)),
            (2, 13, 17, (18, 27)),
            (6, 9, 10, (11, 20)),
            (1, 1, 44, (30, 0)),
            (1, 31, 1, (0, 7)),
        ]
    ]
    plain = sum(plain_scores(each, size) for each in pieces)
    assert isinstance(plain, torch.Tensor)
    torch.testing.assert_close(word_scores(pieces, size), plain)
    bands = word_score_bands(pieces, size, tile=1000)
    torch.testing.assert_close(torch.cat([band for _, band in bands], dim=1), plain)
    labels, scores = label_map(pieces, size)
    torch.testing.assert_close(scores, plain.amax(dim=0))
    assert (labels == plain.argmax(dim=0)).float().mean() > 0.99


def test_bands_cover_the_image_within_the_tile(piece: PartialScores) -> None:
    bands = list(word_score_bands([piece], (29, 40), tile=600))
    assert [rows.start for rows, _ in bands] == [0, *(rows.stop for rows, _ in bands[:-1])]
    assert bands[-1][0].stop == 29
    assert len(bands) > 5
    assert all(band.numel() <= 600 for _, band in bands)
    whole = torch.cat([band for _, band in bands], dim=1)
    torch.testing.assert_close(whole, word_scores([piece], (29, 40)))


def test_pixels_without_a_score_have_no_label() -> None:
    masks = torch.zeros(1, 2, 2)
    masks[0, 0, 1] = 1
    labels, scores = label_map([PartialScores(torch.tensor([[0.2, 0.7]]), masks)], (2, 2))
    assert labels.tolist() == [[-1, 1], [-1, -1]]
    torch.testing.assert_close(scores, torch.tensor([[0.0, 0.7], [0.0, 0.0]]))
    labels, _ = label_map([PartialScores(torch.zeros(0, 3), torch.zeros(0, 2, 2))], (4, 5))
    assert labels.shape == (4, 5)
    assert (labels == -1).all()
