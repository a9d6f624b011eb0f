"""The best class of every pixel without the scores of all classes at all pixels.

A pixel's score of a class is ``sum_q p[q, c] * mask[q]`` with nothing negative in it. Within a tile
of pixels it lies between the sum over the tile's smallest and that over its largest mask values. A
class whose largest possible score is below another's smallest cannot win anywhere in the tile, and
in most tiles that leaves a single class. The result is that of the argmax over all classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

#: a tile's side in pixels; larger ones rule out fewer classes, smaller ones have more bounds
SIDE = 8
# tiles are grouped by the number of classes that may win in them: up to so many, or all
_GROUPS = (4, 16)
# relative, for rounding in the bounds
_SLACK = 1e-5


@dataclass
class Tiles:
    """Masks cut into tiles of ``SIDE`` x ``SIDE`` pixels, the last ones continued past the border.

    Attributes:
        size: height and width of the masks in pixels.
        pixels: (T, SIDE * SIDE, K), the K masks' values, not negative.
        least, most: (T, K), the smallest and largest value of each mask in each tile.
    """

    size: tuple[int, int]
    pixels: Tensor
    least: Tensor
    most: Tensor

    @classmethod
    def cut(cls, masks: Tensor) -> Tiles:
        """Cut masks (K, H, W)."""
        count, height, width = masks.shape
        rows, columns = -(-height // SIDE), -(-width // SIDE)
        if count == 0:
            none = masks.new_zeros((rows * columns, SIDE * SIDE, 0))
            return cls((height, width), none, none[:, 0], none[:, 0])
        masks = F.pad(masks[None], (0, -width % SIDE, 0, -height % SIDE), mode="replicate")[0]
        grid = masks.reshape(count, rows, SIDE, columns, SIDE)
        pixels = grid.permute(1, 3, 2, 4, 0).reshape(rows * columns, SIDE * SIDE, count)
        # over rows first: several times faster than over both at once
        least = grid.amin(dim=2).amin(dim=3).flatten(1).T
        most = grid.amax(dim=2).amax(dim=3).flatten(1).T
        return cls((height, width), pixels, least, most)

    def join(self, values: Tensor) -> Tensor:
        """Values (T, SIDE * SIDE) of the tiles' pixels as an image (H, W)."""
        height, width = self.size
        rows, columns = -(-height // SIDE), -(-width // SIDE)
        image = values.view(rows, columns, SIDE, SIDE).transpose(1, 2)
        return image.reshape(rows * SIDE, columns * SIDE)[:height, :width]


def best_classes(class_probs: Tensor, tiles: Tiles) -> Tensor:
    """The best class of every pixel.

    Args:
        class_probs: (K, C), not negative.
        tiles: of the K masks.

    Returns:
        int64 (T, SIDE * SIDE); of equals the first, -1 where no class scores above 0.
    """
    by_class = class_probs.T.contiguous()
    count = len(by_class)
    bounds = tiles.most @ class_probs
    least = (tiles.least @ class_probs).amax(dim=1)
    contenders = (bounds * (1 + _SLACK) >= least[:, None]).sum(dim=1)
    classes = bounds.argmax(dim=1)[:, None].repeat(1, SIDE * SIDE)
    open_tiles = (contenders > 1) | (least <= 0)
    fewer = 0
    for group in sorted({min(size, count) for size in (*_GROUPS, count)}):
        members = (open_tiles & (contenders > fewer) & (contenders <= group)).nonzero()[:, 0]
        fewer = group
        if len(members) == 0:
            continue
        # in the order of the classes, so that the first of equals wins
        chosen = bounds[members].topk(group).indices.sort(dim=1).values
        scores = tiles.pixels[members] @ by_class[chosen].transpose(1, 2)
        best, winner = scores.max(dim=2)
        classes[members] = chosen.gather(1, winner).masked_fill(best <= 0, -1)
    return classes


def scores_of(classes: Tensor, class_probs: Tensor, tiles: Tiles) -> Tensor:
    """The scores (T, SIDE * SIDE) of :func:`best_classes`; 0 where the class is -1."""
    probs = class_probs.T.contiguous()[classes.clamp(min=0)]
    return (probs * tiles.pixels).sum(dim=2).masked_fill(classes < 0, 0)
