"""Regions and words in CLIP's space: text embeddings -> both branches -> ensemble."""

from __future__ import annotations

import torch
from torch import Tensor

from ovseg.background_words import background_words
from ovseg.structures import Classified, ClipClasses, CropFeatures, Regions, TextEmbeddings
from ovseg.vocabulary import Vocabulary

from .clip import ClipAdapter
from .crop_choice import CropChoice
from .ensemble import combine, most_without_clip
from .present_classes import among_all, only, present_classes, without_others
from .reject import probabilities_with_background, weigh_background
from .seen_classes import SeenClasses


class Classification:
    """The classifying stage of :class:`ovseg.modeling.OVSeg`, whose attributes these are."""

    clip_adapter: ClipAdapter
    clip_ensemble_weight: float
    unseen_weight: float | None
    seen_classes: SeenClasses | None
    crop_choice: CropChoice
    mask_threshold: float
    min_class_area: float

    def text(self, vocabulary: Vocabulary) -> TextEmbeddings:
        """The text embeddings of a vocabulary; known words are not encoded again."""
        words = vocabulary.words
        of_crops = self.clip_adapter.crop_text_features(words)
        if not vocabulary.reject:
            features = self.clip_adapter.text_features(words)
            return TextEmbeddings(vocabulary, features, of_crops=of_crops)
        features = self.clip_adapter.text_features([*words, *background_words(words)])
        own = torch.cat([features[: len(words)], features[-1:]])  # "no object" is the last
        return TextEmbeddings(vocabulary, own, features[len(words) : -1], of_crops)

    def classify(
        self,
        regions: Regions,
        text: TextEmbeddings,
        ensemble_weight: float | None = None,
        unseen_weight: float | None = None,
    ) -> Classified:
        """The ensemble of MaskFormer's and, where there are crops, CLIP's classification.

        ``ensemble_weight`` stands in place of the model's own, for all classes, or with
        ``unseen_weight`` for seen ones.
        """
        weights = (ensemble_weight, unseen_weight)
        classified = self._classify(regions, text, *weights)
        if not self.min_class_area:
            return classified
        vocabulary = text.vocabulary
        present = present_classes(classified, regions.masks, vocabulary, self.min_class_area)
        if not 0 < len(present) < len(vocabulary):
            return classified
        if len(present) == 1:  # nothing is left to decide
            return without_others(classified, present, vocabulary)
        again = self._classify(regions, only(text, present), *weights)
        return among_all(again, present, vocabulary)

    def _classify(
        self, regions: Regions, text: TextEmbeddings, weight: float | None, unseen: float | None
    ) -> Classified:
        weights = self._weight(text.vocabulary, weight, unseen)
        probs = self.classify_queries(regions, text)
        if regions.crops is not None and self.crop_choice.visible_only:
            classified = self._classify_chosen(regions, regions.crops, text, probs, weights)
        else:
            clip = None if regions.crops is None else self.classify_crops(regions.crops, text)
            classified = combine(probs, clip, weights)
        strength = text.vocabulary.reject
        return weigh_background(classified, strength) if strength else classified

    def _weight(
        self, vocabulary: Vocabulary, weight: float | None, unseen: float | None
    ) -> float | Tensor:
        """One weight, or one for each of what competes, float (W,)."""
        if weight is None:
            weight, unseen = self.clip_ensemble_weight, self.unseen_weight
        if unseen is None or unseen == weight:
            return weight
        assert self.seen_classes is not None
        seen = self.seen_classes.of_words(vocabulary)
        weights = [weight if each else unseen for each in seen]
        return torch.tensor(weights, device=self.clip_adapter.pixel_mean.device)

    def classify_queries(self, regions: Regions, text: TextEmbeddings) -> Tensor | None:
        """MaskFormer's probabilities (Q, W), rows summing to at most one (paper section 3.1); None
        for regions without embeddings."""
        if regions.embeddings is None:
            return None
        logits = self.clip_adapter.similarity(regions.embeddings, text.features)
        if text.background is None:
            # "no object" is dropped after the softmax here, and before it in CLIP's branch
            return logits.softmax(dim=-1)[:, :-1]
        if regions.crops is not None:
            return logits.softmax(dim=-1)  # "no object" is the background
        background = self.clip_adapter.similarity(regions.embeddings, text.background)
        return probabilities_with_background(logits[:, :-1], background)

    def classify_crops(self, crops: CropFeatures, text: TextEmbeddings) -> ClipClasses:
        """CLIP's classification of an image's crops (paper section 3.2)."""
        words = text.features[:-1] if text.of_crops is None else text.of_crops
        logits = self.clip_adapter.similarity(crops.features, words)
        if text.background is None:
            return ClipClasses(logits.softmax(dim=-1), crops.valid)
        background = self.clip_adapter.similarity(crops.features, text.background)
        return ClipClasses(probabilities_with_background(logits, background), crops.valid)

    def combine(
        self, probs: Tensor | None, clip: ClipClasses | None, weight: float | None = None
    ) -> Classified:
        """Both classifications as one (paper section 3.4), see :mod:`ovseg.modeling.ensemble`.

        ``weight`` stands in place of the model's own ``clip_ensemble_weight``.
        """
        return combine(probs, clip, self.clip_ensemble_weight if weight is None else weight)

    def _classify_chosen(
        self,
        regions: Regions,
        crops: CropFeatures,
        text: TextEmbeddings,
        probs: Tensor | None,
        weight: float | Tensor,
    ) -> Classified:
        """The classification of regions of which CLIP sees those alone that can show."""
        choice, masks = self.crop_choice, regions.masks
        known = len(text.vocabulary.words)  # without the background
        strength = potential = masks.new_ones(len(masks))
        if probs is not None:
            weights = weight[:known] if isinstance(weight, Tensor) else weight
            strength, potential = most_without_clip(probs[:, :known], weights)
        if regions.shared is not None:  # more is known
            before = combine(probs, self.classify_crops(regions.shared, text), weight)
            strength = torch.zeros_like(strength)
            strength[before.queries] = before.class_probs[:, :known].amax(dim=1)
        areas = choice.areas(masks, strength)
        # masks that are not valid have no crop, so they cost nothing
        chosen = (areas > choice.min_area) | ~crops.valid
        shown = chosen if regions.shared is None else chosen | (areas > 0)
        rest = (crops, text, probs, weight)
        classified = self._classify_by(regions, *rest, chosen, shown)
        more = choice.more(masks, potential, classified, chosen)
        if more.any():
            classified = self._classify_by(regions, *rest, chosen | more, shown | more)
        return classified

    def _classify_by(
        self,
        regions: Regions,
        crops: CropFeatures,
        text: TextEmbeddings,
        probs: Tensor | None,
        weight: float | Tensor,
        chosen: Tensor,
        shown: Tensor,
    ) -> Classified:
        """The classification of regions by the crops of those that are chosen, bool (Q,).

        Others are classified by the shared pass, where there is one and they can show, or by lent
        features.
        """
        if regions.shared is None:
            threshold = self.mask_threshold if crops.threshold is None else crops.threshold
            lender = self.crop_choice.lenders(regions.masks > threshold, chosen)
            taken = (lender >= 0).nonzero()[:, 0]
            valid = crops.valid[taken]
            features = crops.of(lender[taken[valid]])
        else:
            taken = shown.nonzero()[:, 0]
            valid = crops.valid[taken]
            features = regions.shared.features[shown[crops.valid]]
            of_crops = chosen[taken[valid]]
            features[of_crops] = crops.of(taken[valid][of_crops])
        clip = self.classify_crops(CropFeatures(features, valid), text)
        part = combine(None if probs is None else probs[taken], clip, weight)
        return Classified(part.class_probs, taken[part.queries])
