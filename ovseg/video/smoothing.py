"""Classes that stay: averaging a proposal's class probabilities over the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from ovseg.errors import UserError
from ovseg.structures import Classified, Regions

# masks are compared at this size at most, which is exact enough and quick
_SIDE = 128
# proposals of less overlap (intersection over union) are not the same
_LEAST_OVERLAP = 0.5


class Smoother:
    """Averages class probabilities exponentially over matched proposals of consecutive frames.

    Proposals are matched one to one by the overlap of their masks, in sum as large as possible
    (the Hungarian method). One without a partner, as after a cut, starts anew.
    """

    def __init__(self, alpha: float) -> None:
        """
        Args:
            alpha: share of the past in the average, at least 0 and less than 1; 0: no smoothing.

        Raises:
            UserError: an ``alpha`` outside of this range.
        """
        if not 0 <= alpha < 1:
            raise UserError(f"smooth {alpha} must be at least 0 and less than 1")
        self.alpha = alpha
        self._words: Sequence[str] = ()
        self._masks: Tensor | None = None
        self._probs: Tensor | None = None
        self._size: tuple[int, ...] = ()

    def start(self, words: Sequence[str]) -> None:
        """Say by which words the next frame is classified; others than before start anew."""
        if tuple(words) != self._words:
            self._words, self._masks, self._probs = tuple(words), None, None

    def __call__(self, regions: Regions, classified: Classified) -> Classified:
        """The next frame's classification, smoothed; a frame of another size starts anew.

        Args:
            regions: of the frame.
            classified: of its proposals, by the same words in every frame.
        """
        size = tuple(regions.masks.shape[-2:])
        if size != self._size:
            self._size, self._masks, self._probs = size, None, None
        masks = _small(regions.masks[classified.queries])
        probs = classified.class_probs.clone()
        # with reject, there is one more that competes
        same_words = self._probs is not None and self._probs.shape[1] == probs.shape[1]
        if self._masks is not None and self._probs is not None and same_words and len(masks):
            overlaps = overlap(self._masks, masks)
            before, now = linear_sum_assignment(-overlaps.cpu().numpy())
            before, now = torch.as_tensor(before), torch.as_tensor(now)
            same = (overlaps.cpu()[before, now] >= _LEAST_OVERLAP).nonzero().flatten()
            before, now = before[same].to(probs.device), now[same].to(probs.device)
            probs[now] = self.alpha * self._probs[before] + (1 - self.alpha) * probs[now]
        self._masks, self._probs = masks, probs
        return replace(classified, class_probs=probs)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of masks, float (M, P) and (N, P) of zeros and ones: (M, N)."""
    common = first @ second.T
    union = first.sum(dim=1)[:, None] + second.sum(dim=1)[None] - common
    return common / union.clamp(min=1)


def _small(masks: Tensor) -> Tensor:
    """Masks (K, H, W), 0..1, as zeros and ones (K, P) at a common small size."""
    height, width = masks.shape[-2:]
    factor = min(1.0, _SIDE / max(height, width))
    size = [max(1, round(height * factor)), max(1, round(width * factor))]
    if not len(masks):
        return masks.new_zeros((0, size[0] * size[1]))
    small = functional.interpolate(masks[None].float(), size=size, mode="area")[0]
    return (small > 0.5).float().flatten(1)
