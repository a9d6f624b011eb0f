"""Crops on masks small enough to check by eye."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.modeling.crops import (
    cut_at_once,
    cut_crops,
    cut_one_by_one,
    expand_boxes,
    mask_boxes,
)

FILL = (100.0, 110.0, 120.0)


def grid(text: str) -> torch.Tensor:
    rows = text.split()
    return torch.tensor([[c == "x" for c in row] for row in rows])


MASKS = torch.stack(
    [
        grid(".... .xx. .x.. ...."),
        grid("...x .... .... x..."),
        grid(".... .... .... ...."),
        grid("xxxx xxxx xxxx xxxx"),
        grid(".... .... ..x. ...."),
    ]
)


def test_boxes_have_exclusive_right_and_bottom():
    assert mask_boxes(MASKS).tolist() == [
        [1, 1, 3, 3],
        [0, 0, 4, 4],
        [0, 0, 0, 0],
        [0, 0, 4, 4],
        [2, 2, 3, 3],
    ]


@pytest.mark.parametrize(
    ("box", "ratio", "expected"),
    [
        ((2, 3, 6, 5), 1.0, (2, 3, 6, 5)),
        ((2, 3, 6, 5), 2.0, (0, 2, 8, 6)),
        ((2, 3, 6, 5), 1.5, (1, 2, 7, 5)),  # 2.5 and 5.5 are cut to whole pixels
        ((2, 3, 6, 5), 9.0, (0, 0, 10, 8)),
        ((2, 3, 3, 4), 0.2, (2, 3, 3, 4)),  # never empty
    ],
)
def test_box_grows_about_its_centre_inside_the_image(box, ratio, expected):
    assert expand_boxes(torch.tensor([box]), ratio, height=8, width=10).tolist() == [list(expected)]


def crop(masks, **kwargs):
    image = torch.arange(3 * 16).float().view(3, 4, 4)
    options = {"size": (4, 4), "threshold": 0.5, "fill": FILL, **kwargs}
    return image, cut_crops(image, masks.float(), **options)


def test_background_is_filled_and_the_region_kept():
    image, crops = crop(MASKS[3:4])
    torch.testing.assert_close(crops.images[0], image)
    _, crops = crop(MASKS[:1], size=(2, 2))
    # the box is rows 1-2 and columns 1-2; its lower right pixel is background
    expected = image[:, 1:3, 1:3].clone()
    expected[:, 1, 1] = torch.tensor(FILL)
    torch.testing.assert_close(crops.images[0], expected)
    assert crops.masks[0, 0].tolist() == [[1, 1], [1, 0]]


def test_masks_without_a_pixel_have_no_crop():
    _, crops = crop(MASKS)
    assert crops.valid.tolist() == [True, True, False, True, True]
    assert crops.images.shape == (4, 3, 4, 4)
    assert crops.masks.shape == (4, 1, 4, 4)
    _, none = crop(MASKS[2:3])
    assert none.images.shape == (0, 3, 4, 4)
    assert none.valid.tolist() == [False]


def test_threshold_is_exclusive():
    _, crops = crop(0.5 * MASKS[3:4].float())
    assert not crops.valid.any()


def test_crop_is_scaled_without_keeping_the_aspect():
    masks = grid(".... xxxx .... ....")[None]
    image, crops = crop(masks, size=(6, 8))
    expected = F.interpolate(image[None, :, 1:2], size=(6, 8), mode="bicubic")
    torch.testing.assert_close(crops.images, expected)


def test_matting_weights_by_probability():
    masks = torch.full((1, 4, 4), 0.75)
    masks[0, 0] = 0
    image, crops = crop(masks, matting=True, size=(4, 4), expand_ratio=2.0)
    torch.testing.assert_close(crops.images[0, :, 1:], 0.75 * image[:, 1:])
    assert crops.images[0, :, 0, 0].tolist() == list(FILL)


@pytest.mark.parametrize("matting", [False, True])
def test_all_crops_at_once_equal_one_by_one(matting):
    generator = torch.Generator().manual_seed(0)
    image = 255 * torch.rand(3, 61, 83, generator=generator)
    weights = torch.rand(9, 61, 83, generator=generator) * (torch.rand(9, 61, 83) > 0.3)
    weights = weights if matting else (weights > 0).float()
    boxes = [
        (0, 0, 83, 61), (82, 60, 83, 61), (0, 0, 1, 61), (3, 5, 35, 37), (10, 20, 12, 60),
        (0, 0, 32, 32), (19, 0, 83, 61), (5, 5, 8, 8), (1, 2, 65, 34),
    ]  # fmt: skip
    arguments = image, weights, torch.tensor(boxes), torch.tensor(FILL).view(3, 1, 1), (32, 48)
    expected, expected_masks = cut_one_by_one(*arguments)
    images, masks = cut_at_once(*arguments)
    torch.testing.assert_close(masks, expected_masks, rtol=0, atol=0)
    torch.testing.assert_close(images / 255, expected / 255, rtol=0, atol=1e-4)
    assert images.shape == expected.shape == (9, 3, 32, 48)
