"""What the stages hand to each other: text embeddings, proposals, regions, crops, scores."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg.vocabulary import Vocabulary


@dataclass
class TextEmbeddings:
    """A vocabulary in CLIP's text space.

    Attributes:
        vocabulary: of N words.
        features: float (N + 1, D), of unit length; the last row stands for "no object".
        background: float (M, D), of unit length; words of no class, which compete as one; None:
            without ``vocabulary.reject``.
        of_crops: float (N, D), of any length; what CLIP's branch multiplies crops with in place of
            ``features``; None: the same.
    """

    vocabulary: Vocabulary
    features: Tensor
    background: Tensor | None = None
    of_crops: Tensor | None = None


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


class CropFeatures:
    """What CLIP makes of the crops of one image's masks: given, or encoded when they are asked for.

    What is encoded is kept. Several threads may ask.

    Attributes:
        valid: bool (Q,); which of the Q masks are valid: have a pixel above the threshold.
        threshold: that the crops were cut at; None: the model's own.
    """

    threshold: float | None = None

    def __init__(self, features: Tensor, valid: Tensor) -> None:
        """
        Args:
            features: float (V, D), one row for each of the V valid masks, of any length; they are
                classified by their direction.
            valid: bool (Q,).
        """
        self.valid = valid
        self._rows = features.new_zeros((len(valid), features.shape[1]))
        self._rows[valid] = features
        self._encoded = valid.clone()
        self._encode: Callable[[Tensor], Tensor] | None = None
        self._lock = threading.Lock()

    @classmethod
    def on_demand(
        cls,
        valid: Tensor,
        like: Tensor,
        encode: Callable[[Tensor], Tensor],
        threshold: float | None = None,
    ) -> CropFeatures:
        """Features of which none is encoded yet.

        Args:
            valid: bool (Q,).
            like: float (0, D), of the features' width, type and device.
            encode: gives the features (N, D) of N valid masks, of int64 (N,) places in order.
            threshold: see the attribute.
        """
        features = cls(like, torch.zeros_like(valid))
        features.threshold = threshold
        features.valid, features._encode = valid, encode
        return features

    @property
    def features(self) -> Tensor:
        """Float (V, D), of all valid masks."""
        return self.of(self.valid.nonzero()[:, 0])

    @property
    def encoded(self) -> Tensor:
        """Which of the masks are encoded by now, bool (Q,)."""
        return self._encoded

    def of(self, places: Tensor) -> Tensor:
        """Features (N, D) of N masks, all valid, by their places int64 (N,); may repeat."""
        with self._lock:
            wanted = torch.zeros_like(self.valid)
            wanted[places] = True
            missing = (wanted & ~self._encoded).nonzero()[:, 0]
            if len(missing) and self._encode is not None:
                rows = self._rows.clone()  # what was made in inference mode may not be changed
                rows[missing] = self._encode(missing)
                self._rows, self._encoded = rows, self._encoded | wanted
            return self._rows[places]


@dataclass
class Regions:
    """The proposals of one image. They do not depend on any class names.

    Attributes:
        image: (3, H, W), 0..255, channels in the order that the model was given.
        masks: float (Q, H, W); probability of every pixel, 0..1.
        embeddings: float (Q, D); MaskFormer's class embeddings, see :class:`Proposals`; None for
            proposals of another system, which CLIP alone classifies.
        crops: CLIP's features of the masks' crops, or of the masks in a shared pass; None: CLIP
            takes no part (yet).
        shared: those of a shared pass, for masks whose crops are left out; None: there are none.
    """

    image: Tensor
    masks: Tensor
    embeddings: Tensor | None = None
    crops: CropFeatures | None = None
    shared: CropFeatures | None = None


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
        class_probs: float (V, W); probabilities for the V valid masks of the W that compete, see
            :attr:`Vocabulary.class_of_word`; without background rows sum to one.
        valid: bool (Q,); see :class:`CropFeatures`.
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
    """Proposals with the probabilities of the W that compete, ready to be summed.

    Attributes:
        class_probs: float (K, W), not negative; rows need not sum to one.
        queries: int64 (K,); which mask of the image each row belongs to.
    """

    class_probs: Tensor
    queries: Tensor


@dataclass
class PartialScores:
    """What one view of an image, or of a tile of it, adds to the segmentation.

    Scores are linear in class probabilities and masks, so those of several views are a sum of
    parts; a part that counts less than fully has that share in its ``class_probs`` or ``masks``.

    Attributes:
        class_probs: float (K, W).
        masks: float (K, h, w), one for each row of ``class_probs``.
        canvas: height and width of the whole image in the masks' pixels; None: h and w.
        origin: row and column of the whole image where the masks' upper left pixel lies.
    """

    class_probs: Tensor
    masks: Tensor
    canvas: tuple[int, int] | None = None
    origin: tuple[int, int] = (0, 0)
