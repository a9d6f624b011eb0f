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
        pixels: (T, K, SIDE * SIDE), the K masks' values, not negative.
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
            none = masks.new_zeros((rows * columns, 0, SIDE * SIDE))
            return cls((height, width), none, none[..., 0], none[..., 0])
        masks = F.pad(masks[None], (0, -width % SIDE, 0, -height % SIDE), mode="replicate")[0]
        grid = masks.reshape(count, rows, SIDE, columns, SIDE)
        pixels = grid.permute(1, 3, 0, 2, 4).reshape(rows * columns, count, SIDE * SIDE)
        return cls((height, width), pixels, pixels.amin(dim=2), pixels.amax(dim=2))

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
        scores = by_class[chosen] @ tiles.pixels[members]
        best, winner = scores.max(dim=1)
        classes[members] = chosen.gather(1, winner).masked_fill(best <= 0, -1)
    return classes


def scores_of(classes: Tensor, class_probs: Tensor, tiles: Tiles) -> Tensor:
    """The scores (T, SIDE * SIDE) of :func:`best_classes`; 0 where the class is -1."""
    by_class = class_probs.T.contiguous()
    known = classes.clamp(min=0)
    first = known[:, 0]
    scores = (by_class[first][:, None] @ tiles.pixels)[:, 0]
    # most tiles have a single class; in the others the scores of the other classes come on top
    mixed = (known != first[:, None]).any(dim=1).nonzero()[:, 0]
    for label in known[mixed].unique().tolist():
        members = mixed[(known[mixed] == label).any(dim=1)]
        of_label = by_class[label] @ tiles.pixels[members]
        scores[members] = of_label.where(known[members] == label, scores[members])
    return scores.masked_fill(classes < 0, 0)
