"""The best class of every pixel without the scores of all classes; as
:mod:`ovseg.modeling.best_class`, which says why this is the argmax, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: a tile's side in pixels
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
        pixels: float32 (T, SIDE * SIDE, K), the K masks' values, not negative.
        least, most: float32 (T, K), the smallest and largest value of each mask in each tile.
    """

    size: tuple[int, int]
    pixels: np.ndarray
    least: np.ndarray
    most: np.ndarray

    @classmethod
    def cut(cls, masks: np.ndarray) -> Tiles:
        """Cut masks (K, H, W)."""
        count, height, width = masks.shape
        masks = np.pad(masks, ((0, 0), (0, -height % SIDE), (0, -width % SIDE)), mode="edge")
        rows, columns = masks.shape[1] // SIDE, masks.shape[2] // SIDE
        grid = masks.reshape(count, rows, SIDE, columns, SIDE)
        pixels = grid.transpose(1, 3, 2, 4, 0).reshape(rows * columns, SIDE * SIDE, count)
        # over rows first: several times faster than over both at once
        least = grid.min(axis=2).min(axis=3).reshape(count, -1).T
        most = grid.max(axis=2).max(axis=3).reshape(count, -1).T
        return cls((height, width), np.ascontiguousarray(pixels), least, most)

    def join(self, values: np.ndarray) -> np.ndarray:
        """Values (T, SIDE * SIDE) of the tiles' pixels as an image (H, W)."""
        height, width = self.size
        rows, columns = -(-height // SIDE), -(-width // SIDE)
        image = values.reshape(rows, columns, SIDE, SIDE).swapaxes(1, 2)
        return image.reshape(rows * SIDE, columns * SIDE)[:height, :width]


def best_classes(class_probs: np.ndarray, tiles: Tiles) -> np.ndarray:
    """The best class of every pixel.

    Args:
        class_probs: float32 (K, C), not negative.
        tiles: of the K masks.

    Returns:
        int64 (T, SIDE * SIDE); of equals the first, -1 where no class scores above 0.
    """
    by_class = np.ascontiguousarray(class_probs.T)
    count = len(by_class)
    bounds = tiles.most @ class_probs
    least = (tiles.least @ class_probs).max(axis=1)
    contenders = (bounds * (1 + _SLACK) >= least[:, None]).sum(axis=1)
    classes = bounds.argmax(axis=1)[:, None].repeat(SIDE * SIDE, axis=1)
    still_open = (contenders > 1) | (least <= 0)
    fewer = 0
    for group in sorted({min(size, count) for size in (*_GROUPS, count)}):
        members = np.flatnonzero(still_open & (contenders > fewer) & (contenders <= group))
        fewer = group
        if not len(members):
            continue
        chosen = np.argpartition(-bounds[members], group - 1, axis=1)[:, :group]
        chosen.sort(axis=1)  # in the order of the classes, so that the first of equals wins
        scores = tiles.pixels[members] @ by_class[chosen].swapaxes(1, 2)
        winner = scores.argmax(axis=2)
        best = np.take_along_axis(scores, winner[..., None], axis=2)[..., 0]
        found = np.take_along_axis(chosen, winner, axis=1)
        classes[members] = np.where(best > 0, found, -1)
    return classes


def scores_of(classes: np.ndarray, class_probs: np.ndarray, tiles: Tiles) -> np.ndarray:
    """The scores float32 (T, SIDE * SIDE) of :func:`best_classes`; 0 where the class is -1."""
    probs = np.ascontiguousarray(class_probs.T)[np.maximum(classes, 0)]
    return np.where(classes < 0, np.float32(0), np.einsum("tpk,tpk->tp", probs, tiles.pixels))
