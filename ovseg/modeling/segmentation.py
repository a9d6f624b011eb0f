"""From classified masks to a segmentation: ``sum_q p[q, c] * mask[q]`` in bounded memory.

The sum is linear in the masks, so it is the Q masks that are resized to the output and never the C
class maps, and it is taken over bands of rows, so that no more than a tile of classes x rows x
width exists where labels alone are wanted. Several views of an image, or tiles of it, are summed in
the same way: see :class:`ovseg.structures.PartialScores`. For the labels of a single view most
classes are ruled out before any sum is taken: see :mod:`ovseg.modeling.best_class`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.structures import Classified, PartialScores

from .best_class import SIDE, Tiles, best_classes, scores_of

# elements of the largest intermediate array; 2^24 floats are 64 MB
TILE = 2**24
# the same for labels on a CPU: arrays of 8 MB get memory that was used before; larger ones are
# asked of the system each time, which takes longer than the work in them
CPU_TILE = 2**21


def word_score_bands(
    parts: Sequence[PartialScores], size: tuple[int, int], tile: int = TILE
) -> Iterator[tuple[slice, Tensor]]:
    """Scores of all classes, band of rows by band of rows.

    Masks are resized bilinearly between pixel centres, as ``F.interpolate`` does it for the whole
    image; beyond its masks a part is 0.

    Args:
        parts: at least one, all of the same C classes.
        size: height and width of the output in pixels.
        tile: most elements that a band's scores or one part's resized masks may have.

    Yields:
        The rows of a band and its scores (C, rows, width).
    """
    height, width = size
    masks, classes = parts[0].masks, parts[0].class_probs.shape[1]
    depth = max(classes, 1, *(len(part.masks) for part in parts))
    breadth = max(width, *(_canvas(part)[1] for part in parts))
    rows = max(1, tile // (breadth * depth))
    for first in range(0, height, rows):
        last = min(first + rows, height)
        band = masks.new_zeros((classes, last - first, width))
        for part in parts:
            _add(band, part, size, first)
        yield slice(first, last), band


def word_scores(parts: Sequence[PartialScores], size: tuple[int, int]) -> Tensor:
    """Scores (C, height, width) of all classes; see :func:`word_score_bands`."""
    scores = parts[0].masks.new_empty((parts[0].class_probs.shape[1], *size))
    for rows, band in word_score_bands(parts, size):
        scores[:, rows] = band
    return scores


def label_map(parts: Sequence[PartialScores], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The best class of every pixel and its score; see :func:`word_score_bands`.

    Probabilities and mask values that are no finite number count 0.

    Returns:
        Labels int32 (height, width), -1 where no class scores above 0, and scores (height, width).
    """
    parts = [
        replace(part, class_probs=_finite(part.class_probs), masks=_finite(part.masks))
        for part in parts
    ]
    masks = parts[0].masks
    labels = torch.empty(size, dtype=torch.int32, device=masks.device)
    best = masks.new_empty(size)
    if len(parts) == 1 and parts[0].canvas is None:
        class_probs = parts[0].class_probs.to(masks.dtype)
        for rows, tiles in _tile_bands(masks, size, class_probs.shape[1]):
            classes = best_classes(class_probs, tiles)
            labels[rows] = tiles.join(classes)
            best[rows] = tiles.join(scores_of(classes, class_probs, tiles))
        return labels, best
    for rows, band in word_score_bands(parts, size):
        best[rows], labels[rows] = band.max(dim=0)
    labels[best <= 0] = -1
    return labels, best


def label_maps(alternatives: Sequence[Classified], masks: Tensor, size: tuple[int, int]) -> Tensor:
    """The labels of :func:`label_map` for several classifications of the same masks.

    Args:
        alternatives: N of them, all with the same C classes.
        masks: (Q, h, w), all masks of the image.
        size: height and width of the output in pixels.

    Returns:
        int32 (N, height, width), -1 where no class scores above 0.
    """
    masks = _finite(masks)
    # over the masks that any of them uses; no class is likely in a mask that one does not use
    used = torch.cat([classified.queries for classified in alternatives]).unique()
    class_probs = []
    for classified in alternatives:
        probs = masks.new_zeros((len(masks), classified.class_probs.shape[1]))
        probs.index_copy_(0, classified.queries, _finite(classified.class_probs).to(masks.dtype))
        class_probs.append(probs[used])
    labels = masks.new_empty((len(class_probs), *size), dtype=torch.int32)
    for rows, tiles in _tile_bands(masks[used], size, class_probs[0].shape[1]):
        for place, probs in enumerate(class_probs):
            labels[place, rows] = tiles.join(best_classes(probs, tiles))
    return labels


def _finite(values: Tensor) -> Tensor:
    """The values, 0 in place of those that are no finite number; mostly the tensor itself."""
    # half precision overflows in a sum where its numbers do not
    if values.sum(dtype=torch.float32).isfinite():
        return values
    return values.nan_to_num(0, 0, 0)


def _tile_bands(
    masks: Tensor, size: tuple[int, int], classes: int
) -> Iterator[tuple[slice, Tiles]]:
    """Masks (K, h, w) resized to ``size``, cut into tiles, band of rows by band of rows."""
    height, width = size
    depth = max(len(masks), classes, 1)
    tile = min(TILE, CPU_TILE) if masks.device.type == "cpu" else TILE
    rows = max(1, tile // (max(width, masks.shape[2]) * depth * SIDE)) * SIDE
    for first in range(0, height, rows):
        last = min(first + rows, height)
        _, band = _resized_rows(masks, 0, masks.shape[1], height, first, last)
        if masks.shape[2] != width:
            band = _resized_columns(band, width)
        yield slice(first, last), Tiles.cut(band)


def _resized_columns(masks: Tensor, width: int) -> Tensor:
    if not len(masks):
        return masks.new_zeros((*masks.shape[:2], width))
    return F.interpolate(masks[None], size=(masks.shape[1], width), mode="bilinear")[0]


def _canvas(part: PartialScores) -> tuple[int, int]:
    return part.canvas or (part.masks.shape[1], part.masks.shape[2])


def _add(band: Tensor, part: PartialScores, size: tuple[int, int], first: int) -> None:
    """Add a part's scores to a band (C, rows, width) of the output, its rows from ``first`` on."""
    if not len(part.masks):
        return
    (height, width), (top, left) = _canvas(part), part.origin
    rows, masks = _resized_rows(part.masks, top, height, size[0], first, first + band.shape[1])
    columns, _, _ = _sources(masks.shape[2], left, width, size[1], 0, size[1])
    region = band[:, rows, columns]
    if not region.numel():
        return
    if width != size[1]:
        masks = F.pad(masks, (left, width - left - masks.shape[2]))
        masks = _resized_columns(masks, size[1])[:, :, columns]
    weights = part.class_probs.T.to(masks.dtype)
    if region.is_contiguous():
        region.view(len(region), -1).addmm_(weights, masks.flatten(1))
    else:
        region += (weights @ masks.flatten(1)).view(region.shape)


def _resized_rows(
    masks: Tensor, top: int, canvas: int, height: int, first: int, last: int
) -> tuple[slice, Tensor]:
    """The rows among ``first`` to ``last`` (exclusive) of an output of ``height`` rows that masks
    (K, h, w) reach, counted from ``first``, and the masks resized to these rows."""
    h = masks.shape[1]
    reached, position, near = _sources(h, top, canvas, height, first, last)
    if h == canvas == height:
        return reached, masks[:, first:last]
    far = (near + 1).clamp(max=canvas - 1)
    share = position - near
    inside = [(row >= top) & (row < top + h) for row in (near, far)]
    weights = [part[:, None].to(masks) for part in ((1 - share) * inside[0], share * inside[1])]
    near, far = ((row - top).clamp(0, h - 1).to(masks.device) for row in (near, far))
    return reached, masks[:, near] * weights[0] + masks[:, far] * weights[1]


def _sources(
    length: int, offset: int, canvas: int, size: int, first: int, last: int
) -> tuple[slice, Tensor, Tensor]:
    """Where outputs ``first`` to ``last`` of ``size`` lie on an axis of ``canvas`` pixels: those
    outputs that pixels ``offset`` to ``offset + length`` have a part in.

    Returns:
        Those outputs, counted from ``first``; their positions, float32; and the pixel at or before
        each position, int64.
    """
    index = torch.arange(first, last, dtype=torch.float32)
    position = ((index + 0.5) * (canvas / size) - 0.5).clamp(min=0)
    near = position.long().clamp(max=canvas - 1)
    reached = ((position > offset - 1) & (position < offset + length)).nonzero()[:, 0].tolist()
    part = slice(reached[0], reached[-1] + 1) if reached else slice(0, 0)
    return part, position[part], near[part]
