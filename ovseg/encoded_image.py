"""An image that was encoded once, to be segmented by any class names."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ovseg.data.vocabulary import ClassNames, read_vocabulary, thing_names
from ovseg.engine.test_time import MultiViewSegmenter, plain_model
from ovseg.errors import UserError, check_share
from ovseg.methods import PixelSegmenter
from ovseg.modeling import OVSeg
from ovseg.prediction import ImageOptions, Prediction, ProposalScores
from ovseg.segments import InstancePrediction, PanopticPrediction
from ovseg.structures import Regions
from ovseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg.video.smoothing import Smoother


class SegmentOptions(ImageOptions, total=False):
    """The options of :meth:`EncodedImage.segment`."""

    smoother: Smoother | None


# of an image: the features of its crops at so many mask thresholds besides the model's own
_THRESHOLDS_KEPT = 8


class EncodedImage:
    """An image after all that needs no class names; made by :meth:`ovseg.Predictor.encode`.

    Attributes:
        image: uint8 (H, W, 3), RGB, 0..255; the image.
    """

    def __init__(
        self,
        model: OVSeg | MultiViewSegmenter | PixelSegmenter,
        image: np.ndarray,
        inputs: Mapping[str, Any],
        encoded: Any,
    ) -> None:
        """
        Args:
            model: which encoded the image.
            image: the image.
            inputs: what the model was given.
            encoded: what the model made of it.
        """
        self.image = image
        self._model = model
        self._inputs = inputs
        self._encoded = encoded
        of_proposals: Any = model  # who asks is refused where there are none
        self._recropped = functools.lru_cache(_THRESHOLDS_KEPT)(
            lambda mask_threshold: of_proposals.recrop(encoded, mask_threshold)
        )

    @property
    def regions(self) -> Regions:
        """The proposals.

        Raises:
            UserError: the image has several views, each with proposals of its own; or the model
                has none.
        """
        plain_model(self._model)
        return _single_view(self._encoded)

    @torch.inference_mode()
    def segment(
        self,
        class_names: ClassNames,
        *,
        class_probs: bool = False,
        proposals: bool = False,
        reject: float | None = None,
        ensemble_weight: float | None = None,
        mask_threshold: float | None = None,
        smoother: Smoother | None = None,
    ) -> Prediction:
        """Segment the image by any class names.

        Args:
            class_names: see :meth:`ovseg.Predictor.__call__`.
            class_probs: give the probabilities of all classes at all pixels too.
            proposals: give the proposals with both branches' probabilities too.
            reject: in place of the config's ``TEST.REJECT``, 0..1: how readily pixels get none of
                the classes, which is where the score of none of these exceeds ``1 - reject`` of the
                sum of it and the best class's; 0: never. See ``docs/reject.md``.
            ensemble_weight: in place of the model's ``CLIP_ENSEMBLE_WEIGHT``, 0..1: the weight of
                CLIP's classes against MaskFormer's; 0 has the published meaning, CLIP alone.
            mask_threshold: in place of the model's ``MASK_THR``, 0..1: a pixel belongs to a
                proposal where its mask exceeds this. The crops are cut anew and go through CLIP
                again, which is kept for thresholds that come back; a model that segments by its
                best proposals alone (``OVSegDEMO``) shows its masks cut at this threshold too.
            smoother: of a video, whose next frame this is; not with ``class_probs``.

        Returns:
            Labels and scores at the image's own size.

        Raises:
            UserError: class names that cannot be used, a number outside 0..1, a weight for a
                model without CLIP ensemble, or what needs proposals of a model without them.
        """
        vocabulary = read_vocabulary(class_names)
        self._check_settings(ensemble_weight, mask_threshold=mask_threshold, reject=reject)
        if class_probs and smoother is not None:  # it may see a frame once alone
            raise UserError("class_probs and smoother do not go together; leave one of them out")
        model = self._model
        encoded: Any = self._encoded
        if mask_threshold is not None:
            encoded = self._recropped(mask_threshold)
        settings: dict[str, Any] = {
            "ensemble_weight": ensemble_weight,
            "mask_threshold": mask_threshold,
        }
        inputs = {**self._inputs, "class_names": vocabulary}
        if reject is not None:
            inputs["reject"] = float(reject)
        adjust: dict[str, Any] = {}
        if smoother is not None:
            plain_model(model)
            _single_view(encoded)
            smoother.start(vocabulary.words)
            adjust = {"adjust": smoother}
        result = model.segment({**inputs, "output": "labels"}, encoded, **settings, **adjust)
        probs = None
        if class_probs:
            scores = model.segment({**inputs, "output": "scores"}, encoded, **settings)["sem_seg"]
            total = scores.sum(dim=0)
            probs = (scores / total.where(total > 0, 1))[: len(vocabulary)].cpu().numpy()
        return Prediction(
            labels=result["labels"].to("cpu", torch.int32).numpy(),
            scores=result["scores"].to("cpu", torch.float32).numpy(),
            class_names=list(vocabulary.names),
            image=self.image,
            class_probs=probs,
            proposals=self._proposal_scores(encoded, vocabulary) if proposals else None,
        )

    def _check_settings(self, ensemble_weight: float | None, **shares: float | None) -> None:
        for name, value in {"ensemble_weight": ensemble_weight, **shares}.items():
            check_share(name, value)
        if isinstance(self._model, PixelSegmenter):
            if ensemble_weight is not None or any(shares.values()):
                plain_model(self._model)  # says that there are no proposals
            return
        if ensemble_weight is not None and not plain_model(self._model).clip_ensemble:
            raise UserError(
                f"ensemble_weight {ensemble_weight}: the model's CLIP_ENSEMBLE is False; "
                "set MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE True or leave the weight out"
            )

    @torch.inference_mode()
    def panoptic(
        self,
        class_names: ClassNames,
        thing_classes: Sequence[str] | None = None,
        *,
        object_mask_threshold: float | None = None,
        overlap_threshold: float | None = None,
        reject: float | None = None,
    ) -> PanopticPrediction:
        """Cut the image into segments: one for every thing and one for every kind of stuff.

        Args:
            class_names: see :meth:`ovseg.Predictor.__call__`.
            thing_classes: the names of those that are things; None: all, or what a built-in list
                says.
            object_mask_threshold, overlap_threshold: 0..1, see
                :func:`ovseg.modeling.panoptic.panoptic_segments`; None: the config's.
            reject: see :meth:`segment`; a mask that is none of the classes becomes no segment.

        Raises:
            UserError: class names or thresholds that cannot be used, or see :attr:`regions`.
        """
        vocabulary, found = self._find(
            class_names, thing_classes, panoptic=True, instances=False,
            object_mask_threshold=object_mask_threshold, overlap_threshold=overlap_threshold,
            reject=reject,
        )  # fmt: skip
        ids, segments = found["panoptic_seg"]
        return PanopticPrediction.of(ids, segments, vocabulary, self.image)

    @torch.inference_mode()
    def instances(
        self,
        class_names: ClassNames,
        thing_classes: Sequence[str] | None = None,
        *,
        max_instances: int | None = None,
        reject: float | None = None,
    ) -> InstancePrediction:
        """Find things, each with a mask and a score of its own.

        Args:
            class_names, thing_classes: see :meth:`panoptic`. Stuff competes, but is not found.
            max_instances: at least 1; None: the config's ``TEST.DETECTIONS_PER_IMAGE``.
            reject: see :meth:`segment`.

        Raises:
            UserError: class names or a number that cannot be used, or see :attr:`regions`.
        """
        vocabulary, found = self._find(
            class_names, thing_classes, panoptic=False, instances=True,
            max_instances=max_instances, reject=reject,
        )  # fmt: skip
        return InstancePrediction.of(found["instances"], vocabulary, self.image)

    def _find(
        self,
        class_names: ClassNames,
        thing_classes: Sequence[str] | None,
        reject: float | None,
        **settings: Any,
    ) -> tuple[Vocabulary, dict[str, Any]]:
        """The vocabulary and what the model's :class:`SegmentFinder` finds by it; ``settings`` that
        are not None stand in place of its own."""
        self._check_settings(None, reject=reject)
        model, vocabulary = plain_model(self._model), read_vocabulary(class_names)
        given = {name: value for name, value in settings.items() if value is not None}
        finder = replace(model.segment_finder, **given)
        things = thing_names(class_names) if thing_classes is None else thing_classes
        inputs = {**self._inputs, "class_names": vocabulary, "thing_classes": things}
        if reject is not None:
            inputs["reject"] = float(reject)
        classified = model.classify(self.regions, model.text(model.vocabulary(inputs)))
        return vocabulary, model.find_segments(inputs, self.regions, classified, finder)

    def _proposal_scores(self, encoded: Any, vocabulary: Vocabulary) -> ProposalScores:
        model, regions = plain_model(self._model), _single_view(encoded)
        text = model.text(vocabulary)
        probs = model.classify_queries(regions, text)
        of_queries = None if probs is None else vocabulary.best_of_words(probs, dim=1)
        of_crops = None
        if regions.crops is not None:
            clip = model.classify_crops(regions.crops, text)
            of_crops = clip.class_probs.new_full((len(regions.masks), len(vocabulary)), torch.nan)
            of_crops[clip.valid] = vocabulary.best_of_words(clip.class_probs, dim=1)
        return ProposalScores(
            masks=regions.masks.float().cpu().numpy(),
            maskformer_probs=None if of_queries is None else of_queries.float().cpu().numpy(),
            clip_probs=None if of_crops is None else of_crops.float().cpu().numpy(),
        )


def _single_view(encoded: Any) -> Regions:
    if not isinstance(encoded, Regions):
        raise UserError(
            "there are proposals of one view of an image alone: "
            "set TEST.AUG.ENABLED and TEST.SLIDING_WINDOW to False"
        )
    return encoded
