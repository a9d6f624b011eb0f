"""The meta-architecture: image -> proposals -> crops -> CLIP -> ensemble -> segmentation.

"Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor

from ovseg.structures import Classified, CropFeatures, Regions

from .assembly import Assembly
from .build import build_parts
from .class_names import common_vocabulary
from .classification import Classification
from .clip import SharedPass
from .criterion import SetCriterion, padded_targets
from .crop_choice import CropChoice
from .crop_encoder import CropEncoder
from .panoptic import SegmentFinder
from .precision import autocast, device_precision
from .proposal_network import ProposalNetwork
from .seen_classes import SeenClasses

Inputs = dict[str, Any]
#: makes another classification of regions
Adjust = Callable[[Regions, Classified], Classified]

_SEMANTIC_ONLY = SegmentFinder()
_ALL = CropChoice()


@META_ARCH_REGISTRY.register()
class OVSeg(Assembly, Classification, ProposalNetwork):
    """Segments an image into whatever classes are named."""

    @configurable
    def __init__(
        self,
        *,
        criterion: SetCriterion,
        crop_encoder: CropEncoder,
        crop_choice: CropChoice = _ALL,
        shared_pass: SharedPass | None = None,
        crops_too: bool = True,
        clip_ensemble: bool,
        clip_ensemble_weight: float,
        unseen_weight: float | None = None,
        seen_classes: SeenClasses | None = None,
        best_proposals_only: bool = False,
        segment_finder: SegmentFinder = _SEMANTIC_ONLY,
        mask_threshold: float,
        min_class_area: float = 0.0,
        reject: float = 0.0,
        **network: Any,
    ) -> None:
        """
        Args:
            criterion: the training loss.
            crop_encoder: cuts regions out and shows them to CLIP.
            crop_choice: which of them.
            shared_pass: shows CLIP the whole image for all regions; None: crops alone.
            crops_too: with a shared pass, chosen crops too, which then count in its place.
            clip_ensemble: let CLIP classify the crops too; False: MaskFormer alone.
            clip_ensemble_weight: see :func:`ensemble`.
            unseen_weight: the same for classes that are not among ``seen_classes``; None: one
                weight for all.
            seen_classes: those that the network was trained on.
            best_proposals_only: segment by the best proposal of each word alone, cut at
                ``mask_threshold``, as the published demo does; False: by all soft proposals.
            segment_finder: finds panoptic segments and instances; they are always made of all soft
                proposals.
            mask_threshold: a pixel belongs to a crop when its mask's probability exceeds this.
            min_class_area: classes that win no more than this share of an image's pixels are
                dropped, and the others decided again, see :func:`present_classes`; 0: none.
            reject: of inputs that do not say, see :attr:`Vocabulary.reject`.
            network: backbone, proposal head and CLIP, see :class:`ProposalNetwork`.
        """
        super().__init__(**network)
        self.criterion = criterion
        self.crop_encoder = crop_encoder
        self.crop_choice = crop_choice
        self.shared_pass = shared_pass
        self.crops_too = crops_too
        self.clip_ensemble = clip_ensemble
        self.clip_ensemble_weight = clip_ensemble_weight
        self.unseen_weight = unseen_weight
        self.seen_classes = seen_classes
        self.best_proposals_only = best_proposals_only
        self.segment_finder = segment_finder
        self.mask_threshold = mask_threshold
        self.min_class_area = min_class_area
        self.reject = reject

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return build_parts(cfg)

    def forward(self, batched_inputs: list[Inputs]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Segment a batch of images, or in training return its losses.

        Args:
            batched_inputs: detectron2's dicts. Each holds ``image`` (uint8 or float (3, H, W),
                0..255, channels as in ``INPUT.FORMAT``) and what to look for: ``class_names`` (a
                :class:`Vocabulary`, or a list with the name of each class or a list of its name and
                synonyms), or ``meta`` with the ``dataset_name`` whose ``stuff_classes`` are meant.
                For inference optionally ``height`` and ``width`` of the output in pixels and
                ``output``: "scores" (default) or "labels"; ``reject`` in place of the model's own;
                ``proposals``, a :class:`GivenProposals` in place of MaskFormer's; and for panoptic
                segments and instances ``thing_classes``, the names of the classes that are things
                (default: all). For training ``instances`` with ``gt_classes`` (indices of classes,
                int64 (N,)) and ``gt_masks`` (bool (N, H, W)).

        Returns:
            In training the weighted losses by name. Otherwise for each image ``sem_seg``, float32
            scores (C, height, width), after a single class those of an internal "others" and with
            ``reject`` those of the background; or, for "labels", ``labels`` int32 (height, width),
            -1 where no class scores best, and ``scores`` float32 (height, width) of these labels.
            Besides, where they are asked for, ``panoptic_seg`` and ``instances``, see
            :mod:`ovseg.modeling.panoptic`.
        """
        if self.training:
            return self._losses(batched_inputs)
        encoded = self.encode(batched_inputs)
        return [self.segment(*each) for each in zip(batched_inputs, encoded, strict=True)]

    def encode(self, batched_inputs: list[Inputs]) -> list[Regions]:
        """What does not depend on class names: image -> proposals -> crops -> CLIP's features.

        Raises:
            UserError: given proposals do not fit the model.
        """
        proposed = self.propose(batched_inputs)
        if not self.clip_ensemble:
            return proposed
        if self.shared_pass is not None or self.crop_choice.visible_only:
            return [self.encode_regions(regions) for regions in proposed]
        valid = [_valid(regions, self.mask_threshold) for regions in proposed]
        places = [each.nonzero()[:, 0] for each in valid]
        features = self.crop_encoder(proposed, places, self.mask_threshold)
        crops = [CropFeatures(*each) for each in zip(features, valid, strict=True)]
        return [replace(regions, crops=each) for regions, each in zip(proposed, crops, strict=True)]

    def segment(
        self,
        inputs: Inputs,
        regions: Regions,
        *,
        ensemble_weight: float | None = None,
        mask_threshold: float | None = None,
        adjust: Adjust | None = None,
    ) -> dict[str, Any]:
        """Class names -> ensemble -> segmentation of an encoded image, as :meth:`forward` does.

        Args:
            inputs: of the image.
            regions: the encoded image, its crops cut at ``mask_threshold``, see :meth:`recrop`.
            ensemble_weight, mask_threshold: in place of the model's own.
            adjust: may change the classification before it is used.
        """
        text = self.text(self.vocabulary(inputs))
        classified = self.classify(regions, text, ensemble_weight)
        if adjust is not None:
            classified = adjust(regions, classified)
        part = self.partial_scores(regions, classified, text.vocabulary, mask_threshold)
        result = self.assemble(inputs, [part], regions.image.shape[-2:])
        return {**result, **self.find_segments(inputs, regions, classified)}

    def encode_regions(self, regions: Regions, mask_threshold: float | None = None) -> Regions:
        """The regions with CLIP's features, of their crops or of a shared pass, or both."""
        if self.shared_pass is None:
            return replace(regions, crops=self.encode_crops(regions, mask_threshold))
        shared = self._encode_together(self.shared_pass, regions, mask_threshold)
        if not self.crops_too:
            return replace(regions, crops=shared)
        return replace(regions, crops=self.encode_crops(regions, mask_threshold), shared=shared)

    def encode_crops(self, regions: Regions, mask_threshold: float | None = None) -> CropFeatures:
        """CLIP's features of the crops of an image's regions (paper section 3.2).

        With a choice of crops none is encoded yet, since what is left out depends on class names.

        Args:
            regions: of one image.
            mask_threshold: in place of the model's own.
        """
        threshold = self.mask_threshold if mask_threshold is None else mask_threshold
        valid = _valid(regions, threshold)

        def encode(places: Tensor) -> Tensor:
            return self.crop_encoder([regions], [places], threshold)[0]

        if self.crop_choice.visible_only:
            nothing = self.clip_adapter.no_features()
            return CropFeatures.on_demand(valid, nothing, encode, threshold)
        return CropFeatures(encode(valid.nonzero()[:, 0]), valid)

    def _encode_together(
        self, shared_pass: SharedPass, regions: Regions, mask_threshold: float | None
    ) -> CropFeatures:
        threshold = self.mask_threshold if mask_threshold is None else mask_threshold
        masks = regions.masks > threshold
        valid = masks.flatten(1).any(dim=1)
        precision = device_precision("MODEL.PRECISION", self.clip_adapter.precision, self.device)
        with autocast(precision, self.device):
            return CropFeatures(shared_pass(regions.image, masks[valid]), valid)

    def recrop(self, regions: Regions, mask_threshold: float) -> Regions:
        """An encoded image with its crops cut at another threshold; its proposals stay."""
        if regions.crops is None or mask_threshold == self.mask_threshold:
            return regions
        return self.encode_regions(regions, mask_threshold)

    def _losses(self, batched_inputs: list[Inputs]) -> dict[str, Tensor]:
        images = self._normalised(batched_inputs)
        proposals = self._proposals(images)
        text = self.clip_adapter.text_features(common_vocabulary(batched_inputs).names)
        layers = [
            (self.clip_adapter.similarity(layer.embeddings, text), layer.mask_logits)
            for layer in (proposals, *proposals.auxiliary)
        ]
        truth = [inputs["instances"].to(self.device) for inputs in batched_inputs]
        return self.criterion(layers, padded_targets(truth, images.tensor.shape[-2:]))


def _valid(regions: Regions, threshold: float) -> Tensor:
    """Which masks have a pixel above the threshold, bool (Q,)."""
    return (regions.masks > threshold).flatten(1).any(dim=1)


@META_ARCH_REGISTRY.register()
def OVSegDEMO(cfg: CfgNode) -> OVSeg:
    """:class:`OVSeg` with ``best_proposals_only``, under the published name."""
    return OVSeg(cfg, best_proposals_only=True)
