"""What the stages hand to each other: proposals, regions, crops, prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: the internal word that keeps a single word company, since classification is by contrast
OTHERS = "others"


@dataclass
class Proposals:
    """What the proposal head says of a batch of images.

    Attributes:
        embeddings: class embedding of every query in CLIP's text space, float (B, Q, D), of any
            length; classified by their direction.
        mask_logits: float (B, Q, h, w) at a quarter of the padded input size.
        auxiliary: the same of the earlier decoder layers, first to last; empty without deep
            supervision.
    """

    embeddings: Tensor
    mask_logits: Tensor
    auxiliary: list[Proposals]


@dataclass
class Regions:
    """The proposals of one image.

    Attributes:
        image: (3, H, W), 0..255, channels in the order that the model was given.
        words: the user's W words.
        text: float (C + 1, D); unit text features of the C classes, the last row standing for "no
            object". C is W, or 2 when an internal "others" keeps a single word company.
        masks: float (Q, H, W); probability of every pixel, 0..1.
        class_probs: float (Q, C); MaskFormer's class probabilities, rows summing to at most one.
        embeddings: float (Q, D); MaskFormer's class embeddings, see :class:`Proposals`; None where
            they are not known.
        clip_only: the proposals are of another system and came without embeddings: class_probs are
            uniform, and CLIP alone classifies.
    """

    image: Tensor
    words: list[str]
    text: Tensor
    masks: Tensor
    class_probs: Tensor
    embeddings: Tensor | None = None
    clip_only: bool = False


@dataclass
class GivenProposals:
    """Proposals for one image that stand in for MaskFormer's.

    Attributes:
        masks: float (N, h, w), 0..1, at any resolution; they show the whole image.
        embeddings: float (N, D), as :attr:`Regions.embeddings`; None: CLIP alone classifies.
    """

    masks: Tensor
    embeddings: Tensor | None = None


@dataclass
class ClipClasses:
    """CLIP's classification of an image's regions.

    Attributes:
        class_probs: float (V, C); class probabilities of the V valid masks, rows summing to one.
        valid: bool (Q,); which of the Q masks are valid: have a pixel above the threshold.
    """

    class_probs: Tensor
    valid: Tensor


@dataclass
class Crops:
    """The regions of one image as CLIP sees them.

    Attributes:
        images: float (N, 3, S, S), RGB, 0..255, background filled; N is the number of valid masks
            and S is CLIP's input size.
        masks: float (N, 1, S, S); above 0 on the region.
        valid: bool (Q,); which of the image's Q masks have a crop, in order.
    """

    images: Tensor
    masks: Tensor
    valid: Tensor


@dataclass
class Classified:
    """Proposals with their class probabilities, ready to be summed.

    Attributes:
        class_probs: float (K, C) in 0..1; rows need not sum to one.
        queries: int64 (K,); which mask of the image each row belongs to.
    """

    class_probs: Tensor
    queries: Tensor


@dataclass
class PartialScores:
    """What one look at an image, or at a tile of it, adds to the segmentation.

    Scores are linear in class probabilities and masks, so those of several looks are a sum of
    pieces; a piece that counts less than fully has that share in its ``class_probs`` or ``masks``.

    Attributes:
        class_probs: float (K, C).
        masks: float (K, h, w), one for each row of ``class_probs``.
        canvas: height and width of the whole image in the masks' pixels; None: h and w.
        origin: row and column of the whole image where the masks' upper left pixel lies.
    """

    class_probs: Tensor
    masks: Tensor
    canvas: tuple[int, int] | None = None
    origin: tuple[int, int] = (0, 0)


@dataclass
class Prediction:
    """The segmentation of one image.

    Attributes:
        labels: int64 (H, W); index into ``class_names``, -1 where no class has a score.
        scores: float32 (H, W); the score of that class, 0 where there is none.
        class_names: the user's words, in the order given; the internal word "others" that keeps a
            single word company is not among them.
    """

    labels: Tensor
    scores: Tensor
    class_names: list[str]

    def areas(self) -> list[int]:
        """Pixels of every class, in the order of ``class_names``."""
        inside = self.labels[self.labels >= 0]
        return torch.bincount(inside, minlength=len(self.class_names)).tolist()
