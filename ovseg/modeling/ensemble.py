"""The two class distributions as one: their geometric mean (paper section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from ovseg.structures import Classified


def proposals_alone(probs: Tensor) -> Classified:
    """MaskFormer's own classification [Q, C] of all its masks."""
    return Classified(probs, torch.arange(len(probs), device=probs.device))


def clip_alone(clip_probs: Tensor, valid: Tensor) -> Classified:
    """CLIP's own classification of the valid masks; arguments as for :func:`ensemble`."""
    return Classified(clip_probs, valid.nonzero()[:, 0])


def ensemble(probs: Tensor, clip_probs: Tensor, valid: Tensor, weight: float) -> Classified:
    """Combine MaskFormer's and CLIP's class probabilities.

    Args:
        probs: MaskFormer's, [Q, C], 0..1.
        clip_probs: CLIP's, [V, C], of the V valid masks.
        valid: bool [Q], V of them true.
        weight: w in 0..1. Above 0: ``probs^(1-w) * clip_probs^w`` for every mask, where CLIP's
            probability of a mask that is not valid counts 1. At 0 the published meaning: CLIP
            alone, over the valid masks only.
    """
    if weight == 0:
        return clip_alone(clip_probs, valid)
    clip_of_all = torch.ones_like(probs)
    clip_of_all[valid] = clip_probs.to(probs.dtype)
    combined = probs ** (1 - weight) * clip_of_all**weight
    return Classified(combined, torch.arange(len(probs), device=probs.device))


def best_proposal_per_word(classified: Classified, visible: Tensor, words: int) -> Classified:
    """Keep the masks that are the best of some word, as the published demo does.

    Args:
        classified: proposals with class probabilities [K, C].
        visible: bool [Q]; masks without a pixel are nobody's best.
        words: how many of the C classes choose a mask; the first ones.
    """
    kept = visible[classified.queries]
    probs, queries = classified.class_probs[kept], classified.queries[kept]
    if len(queries) == 0:
        return Classified(probs, queries)
    chosen = probs[:, :words].argmax(dim=0).unique()
    return Classified(probs[chosen], queries[chosen])
