"""Ground-truth regions by hand: their sizes, and crops as large as their boxes."""

from __future__ import annotations

import numpy as np
import torch

from open_clip_training.common.images import MEAN
from open_clip_training.common.regions import cut_regions, percent, region_sizes

# region 7 is an L of a 2 x 2 box, region 300 a box of its own
IDS = np.array([[7, 0, 0, 0], [7, 7, 300, 300], [0, 0, 300, 300]], np.int32)
IMAGE = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)


def test_sizes_are_pixels_by_id() -> None:
    assert region_sizes(IDS) == {0: 5, 7: 3, 300: 4}
    assert list(region_sizes(IDS)) == [0, 7, 300]


def test_crops_are_boxes_with_or_without_their_background() -> None:
    boxes = torch.from_numpy(np.stack([IMAGE[:2, :2], IMAGE[1:, 2:]])).permute(0, 3, 1, 2).float()
    filled = boxes.clone()
    filled[0, :, 0, 1] = 255 * torch.tensor(MEAN)
    whole = cut_regions(IMAGE, IDS, [7, 300], (2, 2), fill_background=False)
    masked = cut_regions(IMAGE, IDS, [7, 300], (2, 2))
    torch.testing.assert_close(whole.images, boxes)
    torch.testing.assert_close(masked.images, filled)
    assert whole.masks.all()
    assert masked.masks[:, 0].tolist() == [[[1, 0], [1, 1]], [[1, 1], [1, 1]]]


def test_no_region_has_no_crop() -> None:
    crops = cut_regions(IMAGE, IDS, [], (2, 2))
    assert crops.images.shape == (0, 3, 2, 2)
    assert crops.masks.shape == (0, 1, 2, 2)


def test_percent() -> None:
    assert percent(torch.tensor(2) / torch.tensor(3), 2) == 66.67
    assert np.isnan(percent(torch.empty(0).mean(), 1))
