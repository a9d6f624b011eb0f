"""From masks to what CLIP sees: boxes, filled crops (paper section 3.2). Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.structures import Crops

from .memory import rows_at


def mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes of masks.

    Args:
        masks: bool (N, H, W).

    Returns:
        int64 (N, 4): left, top, right, bottom in pixels, right and bottom exclusive; all zero
        for a mask without a pixel.
    """

    def extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
        length = occupied.shape[1]
        index = torch.arange(length, device=occupied.device)
        first = torch.where(occupied, index, length).amin(dim=1)
        last = torch.where(occupied, index + 1, 0).amax(dim=1)
        return torch.minimum(first, last), last

    left, right = extent(masks.any(dim=1))
    top, bottom = extent(masks.any(dim=2))
    return torch.stack((left, top, right, bottom), dim=1)


def expand_boxes(boxes: Tensor, ratio: float, height: int, width: int) -> Tensor:
    """Grow boxes about their centres, cut their edges to whole pixels and to the image.

    Args:
        boxes: int64 (N, 4): left, top, right, bottom in pixels, right and bottom exclusive.
        ratio: factor on both sides; 1 leaves the boxes as they are.
        height, width: size of the image in pixels.

    Returns:
        int64 (N, 4), of boxes that hold at least one pixel.
    """
    low, high = boxes[:, :2].double(), boxes[:, 2:].double()
    centre, half = (low + high) / 2, (high - low) * ratio / 2
    limits = torch.tensor([width, height], device=boxes.device)
    low, high = (centre - half).long().clamp(min=0), (centre + half).long()
    return torch.cat([low, high.minimum(limits).maximum(low + 1)], dim=1)


def cut_crops(
    image: Tensor,
    masks: Tensor,
    *,
    size: tuple[int, int],
    threshold: float,
    fill: Sequence[float],
    expand_ratio: float = 1.0,
    matting: bool = False,
) -> Crops:
    """Cut out what each mask shows and scale it to CLIP's input, aspect not kept.

    Args:
        image: RGB (3, H, W), 0..255.
        masks: probabilities (Q, H, W), 0..1.
        size: height and width of CLIP's input in pixels.
        threshold: a pixel belongs to the mask when its probability exceeds this; a mask without
            such a pixel is not valid and has no crop.
        fill: colour of the background, RGB 0..255.
        expand_ratio: factor on the box's sides.
        matting: weight the image by the probability instead of cutting at the threshold; pixels
            of probability 0 are filled.

    Returns:
        The crops of the valid masks; none valid is a normal case.
    """
    binary = masks > threshold
    valid = binary.flatten(1).any(dim=1)
    places = valid.nonzero()[:, 0]
    binary = rows_at(binary, places)
    weights = rows_at(masks, places) if matting else binary
    image = image.to(masks.dtype)
    colour = image.new_tensor(fill).view(3, 1, 1)
    if not len(weights):
        none = image.new_zeros((0, 1, *size))
        return Crops(none.expand(-1, 3, -1, -1), none, valid)
    boxes = expand_boxes(mask_boxes(binary), expand_ratio, *image.shape[-2:])
    # a processor is faster crop by crop, for it looks at the pixels of the box alone
    cut = cut_one_by_one if image.device.type == "cpu" else cut_at_once
    return Crops(*cut(image, weights, boxes, colour, size), valid)


def cut_one_by_one(
    image: Tensor, weights: Tensor, boxes: Tensor, colour: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Fill and resize crops, each by itself.

    Args:
        image: (3, H, W).
        weights: (N, H, W), at least one, bool or as the image; the colour takes the place of pixels
            of weight 0.
        boxes: int64 (N, 4), as of :func:`expand_boxes`.
        colour: (3, 1, 1).
        size: of the crops.

    Returns:
        Images (N, 3, *size), bicubic, and weights (N, 1, *size), nearest.
    """
    images = image.new_empty((len(weights), 3, *size))
    crop_masks = image.new_empty((len(weights), 1, *size))
    for place, (left, top, right, bottom) in enumerate(boxes.tolist()):
        weight = weights[place, None, top:bottom, left:right].to(image.dtype)
        crop = torch.where(weight > 0, image[:, top:bottom, left:right] * weight, colour)
        images[place] = F.interpolate(crop[None], size=size, mode="bicubic")[0]
        crop_masks[place] = F.interpolate(weight[None], size=size, mode="nearest")[0]
    return images, crop_masks


def cut_at_once(
    image: Tensor, weights: Tensor, boxes: Tensor, colour: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """:func:`cut_one_by_one` for all crops in the same operations, up to rounding."""
    width = image.shape[-1]
    rows, row_shares, near_rows = _taps(boxes[:, 1], boxes[:, 3], size[0])
    columns, column_shares, near_columns = _taps(boxes[:, 0], boxes[:, 2], size[1])
    pixels, weights = image.flatten(1), weights.flatten(1).to(image.dtype)

    def weights_at(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        places = rows[:, :, None] * width + columns[:, None]
        return places, weights.gather(1, places.flatten(1)).view_as(places)

    crops = image.new_zeros((3, len(boxes), *size))
    for row, row_share in zip(rows.unbind(-1), row_shares.unbind(-1), strict=True):
        lines = torch.zeros_like(crops)
        for column, share in zip(columns.unbind(-1), column_shares.unbind(-1), strict=True):
            places, weight = weights_at(row, column)
            filled = torch.where(weight > 0, pixels[:, places] * weight, colour[..., None])
            lines += filled * share[:, None]
        crops += lines * row_share[:, :, None]
    return crops.transpose(0, 1), weights_at(near_rows, near_columns)[1][:, None]


def _taps(begins: Tensor, ends: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where PyTorch's bicubic interpolation of N stretches to ``size`` places looks, and how much.

    Returns:
        The four places int64 (N, size, 4), their shares float32 (N, size, 4), and the place int64
        (N, size) that interpolation by the nearest takes.
    """
    lengths = (ends - begins)[:, None]
    scale = lengths.float() / size
    index = torch.arange(size, device=begins.device)
    position = scale * (index + 0.5) - 0.5
    first = position.floor()
    share = (position - first)[..., None]
    offsets = torch.arange(-1, 3, device=begins.device)
    distance = (share - offsets).abs()
    # the cubic convolution of Keys (1981) with a = -0.75
    inner = ((1.25 * distance - 2.25) * distance) * distance + 1
    outer = ((-0.75 * distance + 3.75) * distance - 6) * distance + 3
    places = (first.long()[..., None] + offsets).clamp(min=0).minimum(lengths[..., None] - 1)
    nearest = (scale * index).floor().long().minimum(lengths - 1)
    begins = begins[:, None]
    shares = torch.where(distance <= 1, inner, outer)
    return begins[..., None] + places, shares, begins + nearest
