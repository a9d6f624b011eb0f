"""An image that was encoded once, to be segmented by any class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ovseg.data.vocabulary import ClassNames, thing_names
from ovseg.errors import UserError, check_share
from ovseg.prediction import Prediction, ProposalScores
from ovseg.runtime.classify import (
    Classified,
    Regions,
    best_of_words,
    best_proposals,
    class_labels,
    classify,
    classify_crops,
    classify_queries,
    weigh_background,
)
from ovseg.runtime.panoptic import instances, panoptic_segments
from ovseg.runtime.segmentation import label_map, word_score_bands
from ovseg.segments import InstancePrediction, PanopticPrediction
from ovseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg.runtime.predictor import Predictor

# of an image: the features of its crops at so many mask thresholds besides the model's own
_THRESHOLDS_KEPT = 8


class EncodedImage:
    """An image after all that needs no class names; made by :meth:`Predictor.encode`.

    Attributes:
        image: uint8 (H, W, 3), RGB, 0..255; the image.
        regions: its proposals.
    """

    def __init__(self, predictor: Predictor, image: np.ndarray, regions: Regions) -> None:
        """
        Args:
            predictor: which encoded the image.
            image: the image.
            regions: what it made of it.
        """
        self.image = image
        self.regions = regions
        self._predictor = predictor
        self._recropped = lru_cache(_THRESHOLDS_KEPT)(
            lambda threshold: predictor.encode_crops(regions, threshold)
        )

    def segment(
        self,
        class_names: ClassNames | None = None,
        *,
        class_probs: bool = False,
        proposals: bool = False,
        reject: float | None = None,
        ensemble_weight: float | None = None,
        mask_threshold: float | None = None,
    ) -> Prediction:
        """Segment the image by any class names.

        Args and result are those of :meth:`ovseg.encoded_image.EncodedImage.segment`, but for
        ``class_names`` None: the class names of the export.

        Raises:
            UserError: class names that cannot be used, a number outside 0..1, or a weight for a
                model without CLIP ensemble.
        """
        settings = self._predictor.folder.settings
        check_share("ensemble_weight", ensemble_weight)
        check_share("mask_threshold", mask_threshold)
        check_share("reject", reject)
        if ensemble_weight is not None and not settings.clip_ensemble:
            raise UserError(
                f"ensemble_weight {ensemble_weight}: the exported model's CLIP_ENSEMBLE is False; "
                "leave the weight out"
            )
        vocabulary = self._predictor.vocabulary(class_names)
        strength = settings.reject if reject is None else float(reject)
        regions, threshold = self.regions, settings.mask_threshold
        if mask_threshold is not None and mask_threshold != threshold:
            threshold = mask_threshold
            if settings.clip_ensemble:
                regions = self._recropped(threshold)
        weight = settings.ensemble_weight if ensemble_weight is None else ensemble_weight
        competing = replace(vocabulary, reject=strength)
        classified, masks = self._classified(regions, competing, weight, threshold)
        size = self.image.shape[0], self.image.shape[1]
        words, scores = label_map(classified.class_probs, masks, size)
        labels = class_labels(words, competing)
        return Prediction(
            labels=labels,
            scores=np.where(labels >= 0, scores, np.float32(0)),
            class_names=list(vocabulary.names),
            image=self.image,
            class_probs=_class_probs(classified, masks, competing, size) if class_probs else None,
            proposals=self._proposal_scores(regions, vocabulary) if proposals else None,
        )

    def panoptic(
        self,
        class_names: ClassNames | None = None,
        thing_classes: Sequence[str] | None = None,
        *,
        object_mask_threshold: float | None = None,
        overlap_threshold: float | None = None,
        reject: float | None = None,
    ) -> PanopticPrediction:
        """Cut the image into segments; args, result and errors are those of
        :meth:`ovseg.encoded_image.EncodedImage.panoptic`, but for ``class_names`` None: the class
        names of the export."""
        check_share("object_mask_threshold", object_mask_threshold)
        check_share("overlap_threshold", overlap_threshold)
        settings = self._predictor.folder.settings
        classified, competing, things = self._competing(class_names, thing_classes, reject)
        return panoptic_segments(
            classified, self.regions.masks, competing, things, self.image,
            settings.object_mask_threshold
            if object_mask_threshold is None
            else object_mask_threshold,
            settings.overlap_threshold if overlap_threshold is None else overlap_threshold,
        )  # fmt: skip

    def instances(
        self,
        class_names: ClassNames | None = None,
        thing_classes: Sequence[str] | None = None,
        *,
        max_instances: int | None = None,
        reject: float | None = None,
    ) -> InstancePrediction:
        """Find things; args, result and errors are those of
        :meth:`ovseg.encoded_image.EncodedImage.instances`, but for ``class_names`` None: the class
        names of the export."""
        most = self._predictor.folder.settings.max_instances
        most = most if max_instances is None else max_instances
        if most < 1:
            raise UserError(f"max_instances {most} must be at least 1")
        classified, competing, things = self._competing(class_names, thing_classes, reject)
        return instances(classified, self.regions.masks, competing, things, self.image, most)

    def _competing(
        self,
        class_names: ClassNames | None,
        thing_classes: Sequence[str] | None,
        reject: float | None,
    ) -> tuple[Classified, Vocabulary, frozenset[int]]:
        """The classified proposals, what they compete for, and which classes are things."""
        check_share("reject", reject)
        settings = self._predictor.folder.settings
        vocabulary = self._predictor.vocabulary(class_names)
        names = thing_classes
        if names is None and class_names is not None:
            names = thing_names(class_names)
        strength = settings.reject if reject is None else float(reject)
        competing = replace(vocabulary, reject=strength)
        things = competing.things(names)
        return (
            self._probabilities(self.regions, competing, settings.ensemble_weight),
            competing,
            things,
        )

    def _probabilities(self, regions: Regions, vocabulary: Vocabulary, weight: float) -> Classified:
        text = self._predictor.text(vocabulary)
        temperature = self._predictor.folder.settings.temperature
        classified = classify(regions, text, temperature, weight)
        if vocabulary.reject:
            return weigh_background(classified, vocabulary.reject)
        return classified

    def _classified(
        self, regions: Regions, vocabulary: Vocabulary, weight: float, threshold: float
    ) -> tuple[Classified, np.ndarray]:
        """The proposals that the segmentation is made of, and their masks."""
        settings = self._predictor.folder.settings
        classified = self._probabilities(regions, vocabulary, weight)
        masks = regions.masks
        if settings.best_proposals_only:
            masks = (masks > np.float32(threshold)).astype(np.float32)
            classified = best_proposals(classified, masks, vocabulary)
        return classified, masks[classified.queries]

    def _proposal_scores(self, regions: Regions, vocabulary: Vocabulary) -> ProposalScores:
        settings = self._predictor.folder.settings
        text = self._predictor.text(vocabulary)
        probs = classify_queries(regions, text, settings.temperature)
        of_crops = None
        if regions.features is not None:
            clip = classify_crops(regions.features, text, settings.temperature)
            of_crops = np.full((len(regions.masks), len(vocabulary)), np.nan, np.float32)
            of_crops[regions.valid] = best_of_words(clip, vocabulary, axis=1)
        of_queries = best_of_words(probs, vocabulary, axis=1)
        return ProposalScores(regions.masks, of_queries, of_crops)


def _class_probs(
    classified: Classified, masks: np.ndarray, vocabulary: Vocabulary, size: tuple[int, int]
) -> np.ndarray:
    """float32 (C, H, W), see :attr:`Prediction.class_probs`."""
    result = np.empty((len(vocabulary), *size), np.float32)
    contested = vocabulary.class_of_word[-1] < 0
    for rows, scores in word_score_bands(classified.class_probs, masks, size):
        best = best_of_words(scores, vocabulary)
        total = best.sum(axis=0) + (scores[-1] if contested else 0)
        result[:, rows] = best / np.where(total > 0, total, 1)
    return result
