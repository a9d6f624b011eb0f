"""The meta-architecture: image -> proposals -> crops -> CLIP -> ensemble -> segmentation.

"Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import ImageList
from torch import Tensor, nn

from ovseg.structures import (
    OTHERS,
    Classified,
    ClipClasses,
    PartialScores,
    Proposals,
    Regions,
)

from .build import build_parts
from .class_names import class_names_of
from .clip import ClipAdapter
from .criterion import SetCriterion, padded_targets
from .crops import cut_crops
from .ensemble import best_proposals, combine
from .proposals.masks import fit_given, image_masks
from .segmentation import class_scores, label_map, label_maps

Inputs = dict[str, Any]


@META_ARCH_REGISTRY.register()
class OVSeg(nn.Module):
    """Segments an image into whatever classes are named."""

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        criterion: SetCriterion,
        clip_adapter: ClipAdapter,
        clip_ensemble: bool,
        clip_ensemble_weight: float,
        best_proposals_only: bool = False,
        mask_threshold: float,
        mask_fill: str,
        mask_expand_ratio: float,
        mask_matting: bool,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
        precision: str = "fp32",
    ) -> None:
        """
        Args:
            backbone: makes feature maps of normalised images.
            sem_seg_head: makes :class:`Proposals` of feature maps.
            criterion: the training loss.
            clip_adapter: classifies crops and query embeddings by text features.
            clip_ensemble: let CLIP classify the crops too; False: MaskFormer alone.
            clip_ensemble_weight: see :func:`ensemble`.
            best_proposals_only: segment by the best proposal of each word alone, cut at
                ``mask_threshold``, as the published demo does; False: by all soft proposals.
            mask_threshold: a pixel belongs to a crop when its mask's probability exceeds this.
            mask_fill: background of crops: "mean" (CLIP's mean colour) or "zero" (black).
            mask_expand_ratio, mask_matting: see :func:`cut_crops`.
            pixel_mean, pixel_std: of the backbone's images, in the order of their channels, 0..255.
            size_divisibility: images are padded to a multiple of this.
            precision: "bf16" runs backbone and CLIP under autocast.
        """
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        self.clip_adapter = clip_adapter
        self.clip_ensemble = clip_ensemble
        self.clip_ensemble_weight = clip_ensemble_weight
        self.best_proposals_only = best_proposals_only
        self.mask_threshold = mask_threshold
        self.mask_fill = mask_fill
        self.mask_expand_ratio = mask_expand_ratio
        self.mask_matting = mask_matting
        self.size_divisibility = size_divisibility or backbone.size_divisibility
        self.precision = precision
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return build_parts(cfg)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[Inputs]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Segment a batch of images, or in training return its losses.

        Args:
            batched_inputs: detectron2's dicts. Each holds ``image`` (uint8 or float [3, H, W],
                0..255, channels as in ``INPUT.FORMAT``) and its words: ``class_names``, or
                ``meta`` with the ``dataset_name`` whose ``stuff_classes`` are meant. For inference
                optionally ``height`` and ``width`` of the output in pixels and ``output``:
                "scores" (default) or "labels", and ``proposals``, a :class:`GivenProposals` in
                place of MaskFormer's. For training ``instances`` with ``gt_classes`` (indices of
                words, int64 [N]) and ``gt_masks`` (bool [N, H, W]).

        Returns:
            In training the weighted losses by name. Otherwise for each image ``sem_seg``, float32
            scores [C, height, width], C counting an internal "others" when one word is given; or,
            for "labels", ``labels`` int64 [height, width], -1 where no word scores, and ``scores``
            float32 [height, width] of these labels.
        """
        if self.training:
            return self._losses(batched_inputs)
        results = []
        for inputs, regions in zip(batched_inputs, self.propose(batched_inputs), strict=True):
            clip = self.classify(regions) if self.clip_ensemble else None
            classified = self.combine(regions, clip)
            results.append(self.assemble(inputs, regions, classified))
        return results

    def propose(self, batched_inputs: list[Inputs]) -> list[Regions]:
        """The proposals of each image, with MaskFormer's classification (paper section 3.1).

        Raises:
            UserError: given proposals do not fit the model.
        """
        own = [inputs for inputs in batched_inputs if "proposals" not in inputs]
        found = iter(self._own_regions(own) if own else [])
        return [
            self._given_regions(inputs) if "proposals" in inputs else next(found)
            for inputs in batched_inputs
        ]

    def classify(self, regions: Regions, mask_threshold: float | None = None) -> ClipClasses:
        """CLIP's classification of the crops of an image's regions (paper section 3.2).

        Args:
            regions: of one image.
            mask_threshold: in place of the model's own.
        """
        crops = cut_crops(
            regions.image,
            regions.masks,
            size=self.clip_adapter.input_size,
            threshold=self.mask_threshold if mask_threshold is None else mask_threshold,
            fill=self._fill_colour(),
            expand_ratio=self.mask_expand_ratio,
            matting=self.mask_matting,
        )
        with self._autocast():
            logits = self.clip_adapter.classify(crops, regions.text)
        return ClipClasses(logits.float()[:, :-1].softmax(dim=-1), crops.valid)

    def combine(
        self, regions: Regions, clip: ClipClasses | None, weight: float | None = None
    ) -> Classified:
        """Both classifications as one (paper section 3.4), see :mod:`ovseg.modeling.ensemble`.

        ``weight`` stands in place of the model's own ``clip_ensemble_weight``.
        """
        return combine(regions, clip, self.clip_ensemble_weight if weight is None else weight)

    def assemble(
        self, inputs: Inputs, regions: Regions, classified: Classified
    ) -> dict[str, Tensor]:
        """The segmentation of one image, as :meth:`forward` returns it."""
        return self.segment(inputs, [self.piece(regions, classified)], regions.image.shape[-2:])

    def piece(self, regions: Regions, classified: Classified) -> PartialScores:
        """What the regions of one look at an image add to its segmentation."""
        masks = self._segmentation_masks(regions, self.mask_threshold)
        classified = self._selected(regions, classified, masks)
        return PartialScores(classified.class_probs, masks[classified.queries])

    def label_maps(
        self,
        inputs: Inputs,
        regions: Regions,
        alternatives: Sequence[Classified],
        mask_threshold: float | None = None,
    ) -> Tensor:
        """The labels of several classifications of one image's regions, sharing their work.

        Args:
            inputs: of the image.
            regions: its proposals.
            alternatives: N classifications of them, at least one.
            mask_threshold: in place of the model's own.

        Returns:
            int64 [N, height, width], each as the ``labels`` of :meth:`forward`.
        """
        threshold = self.mask_threshold if mask_threshold is None else mask_threshold
        masks = self._segmentation_masks(regions, threshold)
        shown = [self._selected(regions, classified, masks) for classified in alternatives]
        labels = label_maps(shown, masks, _output_size(inputs, regions.image.shape[-2:]))
        # an internal "others" is no label
        return labels.masked_fill_(labels >= len(regions.words), -1)

    def segment(
        self, inputs: Inputs, pieces: Sequence[PartialScores], image_size: Sequence[int]
    ) -> dict[str, Tensor]:
        """The sum of pieces of one image, as :meth:`forward` returns it.

        Args:
            inputs: of the image.
            pieces: at least one.
            image_size: height and width of the output where ``inputs`` does not say.
        """
        size = _output_size(inputs, image_size)
        if inputs.get("output", "scores") == "scores":
            return {"sem_seg": class_scores(pieces, size)}
        labels, scores = label_map(pieces, size)
        # an internal "others" is no label
        labels.masked_fill_(labels >= len(class_names_of(inputs)), -1)
        return {"labels": labels, "scores": scores.where(labels >= 0, 0)}

    def _segmentation_masks(self, regions: Regions, mask_threshold: float) -> Tensor:
        masks = regions.masks
        return (masks > mask_threshold).to(masks.dtype) if self.best_proposals_only else masks

    def _selected(self, regions: Regions, classified: Classified, masks: Tensor) -> Classified:
        """What is segmented by."""
        if self.best_proposals_only:
            return best_proposals(classified, masks, regions.words)
        return classified

    def _normalised(self, batched_inputs: list[Inputs]) -> ImageList:
        images = [inputs["image"].to(self.device) for inputs in batched_inputs]
        normalised = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(normalised, self.size_divisibility)

    def _proposals(self, images: ImageList) -> Proposals:
        with self._autocast():
            features = self.backbone(images.tensor)
        return self.sem_seg_head({name: x.float() for name, x in features.items()})

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _own_regions(self, batched_inputs: list[Inputs]) -> list[Regions]:
        images = self._normalised(batched_inputs)
        proposals = self._proposals(images)
        each = zip(
            batched_inputs, proposals.mask_logits, images.image_sizes, proposals.embeddings,
            strict=True,
        )  # fmt: skip
        padded = images.tensor.shape[-2:]
        return [
            self._regions(inputs, image_masks(logits, size, padded), embeddings)
            for inputs, logits, size, embeddings in each
        ]

    def _given_regions(self, inputs: Inputs) -> Regions:
        width = self.clip_adapter.non_object_embedding.shape[1]
        size = inputs["image"].shape[-2:]
        given = fit_given(inputs["proposals"], size, width, self.device)
        return self._regions(inputs, given.masks, given.embeddings)

    def _regions(self, inputs: Inputs, masks: Tensor, embeddings: Tensor | None) -> Regions:
        words = class_names_of(inputs)
        text = self._text_features([*words, OTHERS] if len(words) == 1 else words)
        image = inputs["image"].to(self.device)
        # "no object" is dropped after the softmax here, and before it in CLIP's branch
        if embeddings is None:
            uniform = masks.new_full((len(masks), len(text) - 1), 1 / (len(text) - 1))
            return Regions(image, words, text, masks, uniform, clip_only=True)
        probs = self.clip_adapter.similarity(embeddings, text).softmax(dim=-1)[:, :-1]
        return Regions(image, words, text, masks, probs, embeddings)

    def _text_features(self, words: list[str]) -> Tensor:
        with self._autocast():
            features = self.clip_adapter.text_features(words)
        return features.float()

    def _fill_colour(self) -> list[float]:
        if self.mask_fill == "zero":
            return [0.0, 0.0, 0.0]
        return self.clip_adapter.pixel_mean.flatten().tolist()

    def _losses(self, batched_inputs: list[Inputs]) -> dict[str, Tensor]:
        images = self._normalised(batched_inputs)
        proposals = self._proposals(images)
        text = self._text_features(class_names_of(batched_inputs[0]))
        layers = [
            (self.clip_adapter.similarity(layer.embeddings, text), layer.mask_logits)
            for layer in (proposals, *proposals.auxiliary)
        ]
        truth = [inputs["instances"].to(self.device) for inputs in batched_inputs]
        return self.criterion(layers, padded_targets(truth, images.tensor.shape[-2:]))


@META_ARCH_REGISTRY.register()
def OVSegDEMO(cfg: CfgNode) -> OVSeg:
    """:class:`OVSeg` with ``best_proposals_only``, under the published name."""
    return OVSeg(cfg, best_proposals_only=True)


def _output_size(inputs: Inputs, image_size: Sequence[int]) -> tuple[int, int]:
    return inputs.get("height", image_size[0]), inputs.get("width", image_size[1])
