"""None of these: pixels that belong to no class that is named (not in the paper).

What is none of the classes competes with them like one more word, the background, so that all that
follows is as without it. Its probability for a proposal is

* in MaskFormer's branch that of "no object", which the published system drops;
* in CLIP's branch, which has no such thing, that of general words that are not among the user's:
  they stand in the softmax beside the user's words, and their probabilities are added up.

MaskFormer alone, without CLIP's branch, has the general words too. ``docs/reject.md`` compares this
with other ways.

The strength ``s`` says how the background is weighed: a pixel gets no class where the background
has more than ``1 - s`` of the sum of its score and the best class's. So at 0.5 the background
competes as if it were a class, at 1 it wins everywhere, and more strength never gives a pixel its
class back.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ovseg.structures import Classified

#: logits are divided by this for the background's probability. At CLIP's own temperature a crop is
#: either all a class's or all background's; softer, the doubtful crops can be told apart
SOFTNESS = 2.0


def probabilities_with_background(logits: Tensor, background: Tensor) -> Tensor:
    """Probabilities of words where others compete with them.

    Args:
        logits: (N, W), of the user's words.
        background: (N, M), of general words, by the same measure; M may be 0.

    Returns:
        (N, W + 1), 0..1; the last column is that of all general words together, by softened
        logits, so that rows sum to about one only.
    """
    count = logits.shape[-1]
    both = torch.cat([logits, background], dim=-1)
    known = both.softmax(dim=-1)[..., :count]
    softened = (both / SOFTNESS).softmax(dim=-1)[..., count:]
    return torch.cat([known, softened.sum(dim=-1, keepdim=True)], dim=-1)


def weigh_background(classified: Classified, strength: float) -> Classified:
    """Weigh the background, the last of what competes, by ``strength / (1 - strength)``.

    Args:
        classified: (K, W), the background last.
        strength: above 0, at most 1; at 1 nothing is left of the other scores.
    """
    known, background = classified.class_probs[:, :-1], classified.class_probs[:, -1:]
    if strength == 1:
        known = torch.zeros_like(known)
    else:
        background = background * (strength / (1 - strength))
    return replace(classified, class_probs=torch.cat([known, background], dim=1))
