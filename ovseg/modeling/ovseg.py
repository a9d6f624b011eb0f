"""The meta-architecture: image -> proposals -> crops -> CLIP -> ensemble -> segmentation.

"Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import ImageList
from torch import Tensor, nn

from ovseg.errors import UserError
from ovseg.structures import (
    Classified,
    ClipClasses,
    CropFeatures,
    PartialScores,
    Proposals,
    Regions,
    TextEmbeddings,
)
from ovseg.vocabulary import Vocabulary

from .build import build_parts
from .class_names import things_of, vocabulary_of
from .clip import ClipAdapter
from .criterion import SetCriterion, padded_targets
from .crops import cut_crops
from .ensemble import best_proposals, combine
from .panoptic import SegmentFinder
from .proposals.masks import fit_given, image_masks
from .reject import background_words, probabilities_with_background, weigh_background
from .segmentation import label_map, label_maps, word_scores

Inputs = dict[str, Any]
#: makes another classification of regions
Adjust = Callable[[Regions, Classified], Classified]

_SEMANTIC_ONLY = SegmentFinder()


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
        segment_finder: SegmentFinder = _SEMANTIC_ONLY,
        mask_threshold: float,
        mask_fill: str,
        mask_expand_ratio: float,
        mask_matting: bool,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
        precision: str = "fp32",
        reject: float = 0.0,
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
            segment_finder: finds panoptic segments and instances; they are always made of all soft
                proposals.
            mask_threshold: a pixel belongs to a crop when its mask's probability exceeds this.
            mask_fill: background of crops: "mean" (CLIP's mean colour) or "zero" (black).
            mask_expand_ratio, mask_matting: see :func:`cut_crops`.
            pixel_mean, pixel_std: of the backbone's images, in the order of their channels, 0..255.
            size_divisibility: images are padded to a multiple of this.
            precision: "bf16" runs backbone and CLIP under autocast.
            reject: of inputs that do not say, see :attr:`Vocabulary.reject`.
        """
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        self.clip_adapter = clip_adapter
        self.clip_ensemble = clip_ensemble
        self.clip_ensemble_weight = clip_ensemble_weight
        self.best_proposals_only = best_proposals_only
        self.segment_finder = segment_finder
        self.mask_threshold = mask_threshold
        self.mask_fill = mask_fill
        self.mask_expand_ratio = mask_expand_ratio
        self.mask_matting = mask_matting
        self.size_divisibility = size_divisibility or backbone.size_divisibility
        self.precision = precision
        self.reject = reject
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return build_parts(cfg)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

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
            ``reject`` those of the background; or, for "labels", ``labels`` int64 (height, width),
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
        return [replace(regions, crops=self.encode_crops(regions)) for regions in proposed]

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

    def find_segments(
        self,
        inputs: Inputs,
        regions: Regions,
        classified: Classified,
        finder: SegmentFinder | None = None,
    ) -> dict[str, Any]:
        """Panoptic segments and instances of an image, those that are asked for.

        Args:
            inputs: of the image.
            regions: its proposals.
            classified: by the words of ``inputs``.
            finder: in place of the model's own.
        """
        vocabulary = self.vocabulary(inputs)
        size = _output_size(inputs, regions.image.shape[-2:])
        things = things_of(inputs, vocabulary)
        return (finder or self.segment_finder)(classified, regions.masks, vocabulary, things, size)

    def vocabulary(self, inputs: Inputs) -> Vocabulary:
        """What to look for in an image, and how readily to find none of it."""
        return vocabulary_of(inputs, inputs.get("reject", self.reject))

    def propose(self, batched_inputs: list[Inputs]) -> list[Regions]:
        """The proposals of each image, without crops (paper section 3.1).

        Raises:
            UserError: given proposals do not fit the model.
        """
        own = [inputs for inputs in batched_inputs if "proposals" not in inputs]
        found = iter(self._own_regions(own) if own else [])
        return [
            self._given_regions(inputs) if "proposals" in inputs else next(found)
            for inputs in batched_inputs
        ]

    def encode_crops(self, regions: Regions, mask_threshold: float | None = None) -> CropFeatures:
        """CLIP's features of the crops of an image's regions (paper section 3.2).

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
            features = self.clip_adapter.encode_crops(crops)
        return CropFeatures(features.float(), crops.valid)

    def recrop(self, regions: Regions, mask_threshold: float) -> Regions:
        """An encoded image with its crops cut at another threshold; its proposals stay."""
        if regions.crops is None or mask_threshold == self.mask_threshold:
            return regions
        return replace(regions, crops=self.encode_crops(regions, mask_threshold))

    def text(self, vocabulary: Vocabulary) -> TextEmbeddings:
        """The text embeddings of a vocabulary; known words are not encoded again."""
        words = vocabulary.words
        if not vocabulary.reject:
            return TextEmbeddings(vocabulary, self._text_features(words))
        features = self._text_features([*words, *background_words(words)])
        own = torch.cat([features[: len(words)], features[-1:]])  # "no object" is the last
        return TextEmbeddings(vocabulary, own, features[len(words) : -1])

    def classify(
        self, regions: Regions, text: TextEmbeddings, ensemble_weight: float | None = None
    ) -> Classified:
        """The ensemble of MaskFormer's and, where there are crops, CLIP's classification.

        ``ensemble_weight`` stands in place of the model's own.
        """
        clip = None if regions.crops is None else self.classify_crops(regions.crops, text)
        classified = self.combine(self.classify_queries(regions, text), clip, ensemble_weight)
        strength = text.vocabulary.reject
        return weigh_background(classified, strength) if strength else classified

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
        logits = self.clip_adapter.similarity(crops.features, text.features)[:, :-1]
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

    def partial_scores(
        self,
        regions: Regions,
        classified: Classified,
        vocabulary: Vocabulary,
        mask_threshold: float | None = None,
    ) -> PartialScores:
        """What the regions of one view of an image add to its segmentation.

        ``mask_threshold`` stands in place of the model's own.
        """
        masks = self._segmentation_masks(regions, mask_threshold)
        classified = self._selected(classified, masks, vocabulary)
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
            alternatives: N classifications of them by the words of ``inputs``, at least one.
            mask_threshold: in place of the model's own.

        Returns:
            int64 (N, height, width), each as the ``labels`` of :meth:`forward`.
        """
        vocabulary = vocabulary_of(inputs)
        masks = self._segmentation_masks(regions, mask_threshold)
        selected = [self._selected(classified, masks, vocabulary) for classified in alternatives]
        labels = label_maps(selected, masks, _output_size(inputs, regions.image.shape[-2:]))
        return vocabulary.class_labels(labels)

    def assemble(
        self, inputs: Inputs, parts: Sequence[PartialScores], image_size: Sequence[int]
    ) -> dict[str, Tensor]:
        """The segmentation of one image from its parts, as :meth:`forward` returns it.

        Args:
            inputs: of the image.
            parts: at least one.
            image_size: height and width of the output where ``inputs`` does not say.
        """
        size = _output_size(inputs, image_size)
        vocabulary = self.vocabulary(inputs)
        if inputs.get("output", "scores") == "scores":
            scores = word_scores(parts, size)
            best = vocabulary.best_of_words(scores)
            # "others" or background stays beside the classes, so that the argmax means something
            contested = vocabulary.class_of_word[-1] < 0
            return {"sem_seg": torch.cat([best, scores[-1:]]) if contested else best}
        labels, scores = label_map(parts, size)
        labels = vocabulary.class_labels(labels)
        return {"labels": labels, "scores": scores.where(labels >= 0, 0)}

    def _segmentation_masks(self, regions: Regions, mask_threshold: float | None) -> Tensor:
        masks = regions.masks
        threshold = self.mask_threshold if mask_threshold is None else mask_threshold
        return (masks > threshold).to(masks.dtype) if self.best_proposals_only else masks

    def _selected(
        self, classified: Classified, masks: Tensor, vocabulary: Vocabulary
    ) -> Classified:
        """The proposals that the segmentation is made of."""
        if self.best_proposals_only:
            return best_proposals(classified, masks, vocabulary)
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
            Regions(inputs["image"].to(self.device), image_masks(logits, size, padded), embeddings)
            for inputs, logits, size, embeddings in each
        ]

    def _given_regions(self, inputs: Inputs) -> Regions:
        width = self.clip_adapter.non_object_embedding.shape[1]
        size = inputs["image"].shape[-2:]
        given = fit_given(inputs["proposals"], size, width, self.device)
        return Regions(inputs["image"].to(self.device), given.masks, given.embeddings)

    def _text_features(self, words: Sequence[str]) -> Tensor:
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
        vocabulary, *others = (vocabulary_of(inputs) for inputs in batched_inputs)
        if any(other != vocabulary for other in others):
            raise UserError(
                "the images of a training batch have different class names; give all the same"
            )
        text = self._text_features(vocabulary.names)
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
