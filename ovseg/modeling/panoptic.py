"""From classified masks to segments of things and stuff: MaskFormer's panoptic inference.

"Per-Pixel Classification is Not All You Need for Semantic Segmentation", NeurIPS 2021, section 3.4,
over the ensemble's classes; instances as in "Masked-attention Mask Transformer for Universal Image
Segmentation", CVPR 2022. The score of a proposal is that of its best word in the ensemble. The rows
of the ensemble need not sum to one: MaskFormer's probability of "no object" is left out of its
factor, so a proposal that it takes for nothing scores low. With CLIP alone (weight 0, or proposals
of another system) nothing says "no object".

Masks are resized to the output a few at a time, so that never all of them are held in full size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks, Instances
from torch import Tensor

from ovseg.errors import UserError
from ovseg.structures import Classified
from ovseg.vocabulary import Vocabulary

#: a pixel is inside of a mask when its probability exceeds this
INSIDE = 0.5
# elements of resized masks that are held at a time
_TILE = 2**24


@dataclass(frozen=True)
class SegmentFinder:
    """What is made of an image's proposals besides a semantic segmentation.

    Attributes:
        panoptic: ``panoptic_seg``, see :func:`panoptic_segments`.
        instances: ``instances``, see :func:`instances`.
        object_mask_threshold, overlap_threshold: see :func:`panoptic_segments`.
        max_instances: see :func:`instances`.

    Raises:
        UserError: a threshold is not in 0..1, or ``max_instances`` below 1.
    """

    panoptic: bool = False
    instances: bool = False
    object_mask_threshold: float = 0.0
    overlap_threshold: float = 0.0
    max_instances: int = 100

    def __post_init__(self) -> None:
        for name in ("object_mask_threshold", "overlap_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} must lie in 0..1")
        if self.max_instances < 1:
            raise UserError(f"max_instances {self.max_instances} must be at least 1")

    def __call__(
        self,
        classified: Classified,
        masks: Tensor,
        vocabulary: Vocabulary,
        things: frozenset[int],
        size: tuple[int, int],
    ) -> dict[str, Any]:
        """What is asked for, by detectron2's names.

        Args:
            classified: proposals with the probabilities of the vocabulary's words.
            masks: float (Q, h, w), 0..1; all masks of the image.
            vocabulary: of the image.
            things: the classes that are things; the others are stuff.
            size: height and width of the output in pixels.
        """
        found: dict[str, Any] = {}
        if self.panoptic:
            found["panoptic_seg"] = panoptic_segments(
                classified, masks, vocabulary, things, size,
                self.object_mask_threshold, self.overlap_threshold,
            )  # fmt: skip
        if self.instances:
            found["instances"] = instances(
                classified, masks, vocabulary, things, size, self.max_instances
            )
        return found


def panoptic_segments(
    classified: Classified,
    masks: Tensor,
    vocabulary: Vocabulary,
    things: frozenset[int],
    size: tuple[int, int],
    object_mask_threshold: float,
    overlap_threshold: float,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Segments that do not overlap, in detectron2's format.

    A proposal takes part when its best word scores above ``object_mask_threshold`` and its mask has
    a pixel inside, without which it could be no segment. Every pixel goes to the proposal with the
    largest score x mask, where that exceeds 0. A proposal that gets fewer pixels than
    ``overlap_threshold`` x those inside of its mask is dropped, as are those that stand for the
    internal "others"; their pixels belong to no segment. What is left of one stuff class is one
    segment.

    Args:
        classified, masks, vocabulary, things, size: see :class:`SegmentFinder`.
        object_mask_threshold, overlap_threshold: 0..1.

    Returns:
        int32 (height, width), the id of every pixel's segment, counted from 1; 0 for none. And the
        segments in the order of their ids: ``id``, ``category_id`` (the class), ``isthing``, and
        ``score``, the largest of its proposals.
    """
    scores, words = _best_words(classified)
    masks = masks[classified.queries]
    kept = (scores > object_mask_threshold) & (masks > INSIDE).flatten(1).any(dim=1)
    scores, words, masks = scores[kept], words[kept], masks[kept]
    winners, inside = _winners(scores, masks, size)
    won = torch.bincount(winners.flatten() + 1, minlength=len(scores) + 1)[1:]
    share = won.double() / inside.clamp(min=1)
    lasts = (won > 0) & (inside > 0) & (share >= overlap_threshold)
    segments: list[dict[str, Any]] = []
    of_stuff: dict[int, dict[str, Any]] = {}
    id_of = torch.zeros(len(scores) + 1, dtype=torch.int32)  # the last place is no proposal's
    for place in lasts.nonzero()[:, 0].tolist():
        label, score = vocabulary.class_of_word[int(words[place])], float(scores[place])
        if label < 0:
            continue
        segment = of_stuff.get(label)
        if segment is None:
            segment = {
                "id": len(segments) + 1,
                "category_id": label,
                "isthing": label in things,
                "score": score,
            }
            segments.append(segment)
            if label not in things:
                of_stuff[label] = segment
        segment["score"] = max(segment["score"], score)
        id_of[place] = segment["id"]
    return id_of.to(winners.device)[winners], segments


def instances(
    classified: Classified,
    masks: Tensor,
    vocabulary: Vocabulary,
    things: frozenset[int],
    size: tuple[int, int],
    max_instances: int,
) -> Instances:
    """Things, each with a mask of its own; masks may overlap.

    Of all pairs of a proposal and a thing's class the ``max_instances`` most probable are taken, so
    one proposal may stand for several classes. The score of an instance is the class's probability
    x the mean probability of the pixels inside of its mask.

    Args:
        classified, masks, vocabulary, things, size: see :class:`SegmentFinder`.
        max_instances: at least 1.

    Returns:
        Best first, N at most ``max_instances``: ``pred_masks`` bool (N, height, width), none of
        them empty, ``pred_boxes`` around them, ``scores`` float32 (N,) in 0..1 and ``pred_classes``
        int64 (N,).
    """
    labels = torch.tensor(sorted(things), dtype=torch.int64, device=masks.device)
    probs = vocabulary.best_of_words(classified.class_probs, dim=1)[:, labels].float()
    class_scores, pairs = probs.flatten().topk(min(max_instances, probs.numel()))
    rows = pairs.div(max(len(labels), 1), rounding_mode="floor")
    queries, classes = classified.queries[rows], labels[pairs - rows * len(labels)]
    binary = torch.zeros((len(queries), *size), dtype=torch.bool, device=masks.device)
    certain = masks.new_zeros(len(queries), dtype=torch.float32)
    for part, resized in _resized(masks, queries, size):
        binary[part] = resized > INSIDE
        inside = binary[part].flatten(1)
        sums = (resized.flatten(1) * inside).sum(dim=1, dtype=torch.float32)
        certain[part] = sums / inside.sum(dim=1).clamp(min=1)
    scores = class_scores * certain
    order = scores.argsort(descending=True, stable=True)
    order = order[binary.flatten(1).any(dim=1)[order]]
    found = Instances(size)
    found.pred_masks = binary[order]
    found.pred_boxes = BitMasks(found.pred_masks).get_bounding_boxes()
    found.scores = scores[order]
    found.pred_classes = classes[order]
    return found


def _best_words(classified: Classified) -> tuple[Tensor, Tensor]:
    """Of every proposal the score float32 (K,) of its best word, and that word, int64 (K,)."""
    best = classified.class_probs.float().max(dim=1)
    return best.values, best.indices


def _winners(scores: Tensor, masks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Which of K proposals has the largest score x mask at every pixel, the first of equals.

    Returns:
        int64 (height, width), -1 where all are 0; and how many pixels are inside of each resized
        mask, int64 (K,).
    """
    best = masks.new_zeros(size)
    winners = torch.full(size, -1, dtype=torch.int64, device=masks.device)
    inside = torch.zeros(len(scores), dtype=torch.int64, device=masks.device)
    for part, resized in _resized(masks, torch.arange(len(scores), device=masks.device), size):
        inside[part] = (resized > INSIDE).flatten(1).sum(dim=1)
        values, places = (resized * scores[part, None, None]).max(dim=0)
        better = values > best
        best = torch.where(better, values, best)
        winners = torch.where(better, places + part.start, winners)
    return winners, inside


def _resized(
    masks: Tensor, queries: Tensor, size: tuple[int, int]
) -> Iterator[tuple[slice, Tensor]]:
    """The masks of ``queries``, float (N, height, width), a few at a time and where these are."""
    step = max(1, _TILE // max(size[0] * size[1], 1))
    for first in range(0, len(queries), step):
        some = masks[queries[first : first + step]]
        if some.shape[-2:] != size:
            some = F.interpolate(some[None], size=size, mode="bilinear")[0]
        yield slice(first, first + len(some)), some
