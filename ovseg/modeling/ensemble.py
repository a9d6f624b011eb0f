"""The two class distributions as one: their geometric mean (paper section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from ovseg.errors import UserError
from ovseg.structures import Classified, ClipClasses
from ovseg.vocabulary import Vocabulary


def combine(probs: Tensor | None, clip: ClipClasses | None, weight: float | Tensor) -> Classified:
    """The ensemble of both classifications, or the only one that there is.

    Args:
        probs: MaskFormer's (Q, W); None: the proposals are of another system.
        clip: CLIP's of the same proposals; None: MaskFormer's alone.
        weight: see :func:`ensemble`.

    Raises:
        UserError: there is neither.
    """
    if probs is None:
        if clip is None:
            raise UserError(
                "the proposals have no embeddings to be classified by; "
                "set MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE True"
            )
        return clip_alone(clip.class_probs, clip.valid)
    if clip is None:
        return proposals_alone(probs)
    return ensemble(probs, clip.class_probs, clip.valid, weight)


def proposals_alone(probs: Tensor) -> Classified:
    """MaskFormer's own classification (Q, C) of all its masks."""
    return Classified(probs, torch.arange(len(probs), device=probs.device))


def clip_alone(clip_probs: Tensor, valid: Tensor) -> Classified:
    """CLIP's own classification of the valid masks; arguments as for :func:`ensemble`."""
    return Classified(clip_probs, valid.nonzero()[:, 0])


def ensemble(
    probs: Tensor, clip_probs: Tensor, valid: Tensor, weight: float | Tensor
) -> Classified:
    """Combine MaskFormer's and CLIP's class probabilities.

    Args:
        probs: MaskFormer's, (Q, C), 0..1.
        clip_probs: CLIP's, (V, C), of the V valid masks.
        valid: bool (Q,), V of them true.
        weight: w in 0..1. Above 0: ``probs^(1-w) * clip_probs^w`` for every mask, where CLIP's
            probability of a mask that is not valid counts 1. At 0 the published meaning: CLIP
            alone, over the valid masks only. Or float (C,), one w for each class, as FC-CLIP
            (NeurIPS 2023, section 3.3) has two of them; of these 0 has the formula's meaning,
            MaskFormer alone.
    """
    if not isinstance(weight, Tensor) and weight == 0:
        return clip_alone(clip_probs, valid)
    clip_of_all = torch.ones_like(probs)
    clip_of_all[valid] = clip_probs.to(probs.dtype)
    combined = probs ** (1 - weight) * clip_of_all**weight
    return Classified(combined, torch.arange(len(probs), device=probs.device))


def most_without_clip(probs: Tensor, weight: float | Tensor) -> tuple[Tensor, Tensor]:
    """What the ensemble can become at most, as far as it is known before CLIP sees a proposal.

    Args:
        probs: MaskFormer's, (Q, C), 0..1.
        weight: see :func:`ensemble`; at 0, CLIP alone, nothing is known.

    Returns:
        Float (Q,): for all classes together, and for the best one.
    """
    if not isinstance(weight, Tensor):
        power = 1 - weight if weight > 0 else 0
        return probs.sum(dim=1) ** power, probs.amax(dim=1) ** power
    together = [
        probs[:, weight == each].sum(dim=1) ** (1 - each) for each in weight.unique().tolist()
    ]
    return torch.stack(together).amax(dim=0), (probs ** (1 - weight)).amax(dim=1)


def best_proposals(classified: Classified, masks: Tensor, vocabulary: Vocabulary) -> Classified:
    """Keep the masks that are the best of some class, as the published demo does.

    Args:
        classified: proposals with the probabilities of the vocabulary's words.
        masks: (Q, H, W), 0 and 1; those without a pixel are no class's best.
        vocabulary: of the image.
    """
    kept = masks.flatten(1).any(dim=1)[classified.queries]
    probs, queries = classified.class_probs[kept], classified.queries[kept]
    if len(queries) == 0:
        return Classified(probs, queries)
    chosen = vocabulary.best_of_words(probs, dim=1).argmax(dim=0).unique()
    return Classified(probs[chosen], queries[chosen])
