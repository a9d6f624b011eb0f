"""From classified masks to a segmentation: ``sum_q p[q, c] * mask[q]`` in bounded memory.

The sum is linear in the masks, so it is the Q masks that are resized to the output and never the C
class maps, and it is taken over bands of rows, so that no more than a tile of classes x rows x
width exists where labels alone are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# elements of the largest intermediate array; 2^24 floats are 64 MB
TILE = 2**24


def resize_rows(masks: Tensor, height: int, first: int, last: int) -> Tensor:
    """Rows ``first`` to ``last`` (exclusive) of masks [Q, h, W] resized to ``height`` rows.

    Bilinear between pixel centres, as ``F.interpolate(align_corners=False)``; the width stays.
    """
    h = masks.shape[1]
    if h == height:
        return masks[:, first:last]
    row = torch.arange(first, last, device=masks.device, dtype=torch.float32)
    row = ((row + 0.5) * (h / height) - 0.5).clamp(min=0)
    upper = row.long().clamp(max=h - 1)
    lower = (upper + 1).clamp(max=h - 1)
    share = (row - upper).to(masks.dtype)[:, None]
    return masks[:, upper] * (1 - share) + masks[:, lower] * share


def class_score_bands(
    class_probs: Tensor, masks: Tensor, size: tuple[int, int], tile: int = TILE
) -> Iterator[tuple[slice, Tensor]]:
    """Scores of all classes, band of rows by band of rows.

    Args:
        class_probs: [K, C].
        masks: [K, h, w], of the same masks.
        size: height and width of the output in pixels.
        tile: most elements that a band's scores or resized masks may have.

    Yields:
        The rows of a band and its scores [C, rows, width].
    """
    height, width = size
    rows = max(1, tile // (width * max(class_probs.shape[0], class_probs.shape[1], 1)))
    weights = class_probs.T.to(masks.dtype)
    for first in range(0, height, rows):
        last = min(first + rows, height)
        band = resize_rows(masks, height, first, last)
        if band.shape[-1] != width and len(band):
            band = F.interpolate(band[None], size=(last - first, width), mode="bilinear")[0]
        elif band.shape[-1] != width:
            band = band.new_zeros((0, last - first, width))
        yield slice(first, last), (weights @ band.flatten(1)).view(-1, last - first, width)


def class_scores(class_probs: Tensor, masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Scores [C, height, width] of all classes; see :func:`class_score_bands`."""
    scores = masks.new_empty((class_probs.shape[1], *size))
    for rows, band in class_score_bands(class_probs, masks, size):
        scores[:, rows] = band
    return scores


def label_map(class_probs: Tensor, masks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The best class of every pixel and its score; see :func:`class_score_bands`.

    Returns:
        Labels int64 [height, width], -1 where no class scores above 0, and scores [height, width].
    """
    labels = torch.empty(size, dtype=torch.int64, device=masks.device)
    best = masks.new_empty(size)
    for rows, band in class_score_bands(class_probs, masks, size):
        best[rows], labels[rows] = band.max(dim=0)
    labels[best <= 0] = -1
    return labels, best
