"""Regions as crops show them to CLIP: what a shared pass can learn from (docs/speed.md).

CLIP's features of crops need no class names, so regions of any shape can teach: those of the ground
truth, those that it leaves without a class, and others that look like proposals.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from open_clip_training.common.regions import MIN_PIXELS
from ovseg.modeling.clip.encoder import TEMPERATURE
from ovseg.modeling.crops import cut_crops

#: shares of the masks that are grown, shrunk, joined with another one and cut off; others stay
GROWN, SHRUNK, JOINED, CUT = 0.25, 0.25, 0.15, 0.15
#: by how many pixels masks grow and shrink at most
MOST_PIXELS = 3
#: of the cosine beside the divergence of the classes
COSINE_WEIGHT = 10.0


def like_proposals(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """True masks with the faults of proposals: too large, too small, two in one, a part of one.

    Args:
        masks: bool (R, H, W). A mask whose change would leave fewer than 64 pixels stays.
        rng: says which are changed, and how.

    Returns:
        bool (R, H, W).
    """
    changed = [_changed(mask, masks, rng) for mask in masks]
    pairs = zip(changed, masks, strict=True)
    kept = [new if new.sum() >= MIN_PIXELS else mask for new, mask in pairs]
    return np.stack(kept) if kept else masks


def _changed(mask: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kind, width = rng.random(), int(rng.integers(1, MOST_PIXELS + 1))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    if kind < GROWN:
        return cv2.dilate(mask.astype(np.uint8), kernel) > 0
    if kind < GROWN + SHRUNK:
        return cv2.erode(mask.astype(np.uint8), kernel) > 0
    if kind < GROWN + SHRUNK + JOINED:
        return np.asarray(mask | masks[rng.integers(len(masks))])
    if kind < GROWN + SHRUNK + JOINED + CUT:
        axis = int(rng.integers(2))
        part = np.zeros_like(mask)
        np.moveaxis(part, axis, 0)[: rng.integers(mask.shape[axis])] = True
        return np.asarray(mask & part)
    return mask


def teaching_crops(
    image: np.ndarray, masks: Tensor, size: tuple[int, int], mean: Sequence[float]
) -> Tensor:
    """The crops of regions, as the segmentation network cuts those of its proposals.

    Args:
        image: uint8 (H, W, 3), RGB.
        masks: bool (R, H, W), each with a pixel.
        size: height and width of CLIP's input in pixels.
        mean: of CLIP's pixels, RGB, for values in 0..1.

    Returns:
        float32 (R, 3, height, width), RGB, 0..255.
    """
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    fill = [255 * value for value in mean]
    return cut_crops(pixels, masks.float(), size=size, threshold=0.5, fill=fill).images


def crop_loss(features: Tensor, taught: Tensor, text: Tensor) -> Tensor:
    """How far regions are from what their crops show: in CLIP's space, and in their classes.

    Ten times one minus the cosine, and the divergence of the classifications among the data set's
    class names; the mean over regions.

    Args:
        features: (N, D), of the shared pass.
        taught: (N, D), of the crops.
        text: (C, D), of unit length.
    """
    features, taught = F.normalize(features.float(), dim=-1), F.normalize(taught.float(), dim=-1)
    count = max(1, len(features))
    distance = (1 - (features * taught).sum(dim=-1)).sum() / count
    classes = (TEMPERATURE * taught @ text.T).softmax(dim=-1)
    found = (TEMPERATURE * features @ text.T).log_softmax(dim=-1)
    divergence = F.kl_div(found, classes, reduction="sum") / count
    return COSINE_WEIGHT * distance + divergence
