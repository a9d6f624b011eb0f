"""The meta-architecture: image -> proposals -> crops -> CLIP -> ensemble -> segmentation.

"Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone, build_sem_seg_head
from detectron2.structures import ImageList
from torch import Tensor, nn

from ovseg.config import check_config
from ovseg.errors import UserError
from ovseg.structures import Classified, ClipClasses, Piece, Proposals, Regions

from .clip import ClipAdapter, build_clip, text_templates
from .criterion import SetCriterion
from .crops import cut_crops
from .ensemble import best_proposal_per_word, clip_alone, ensemble, proposals_alone
from .matcher import HungarianMatcher
from .segmentation import class_scores, label_map, label_maps

# company for a single word: classification is by contrast
OTHERS = "others"

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
        check_config(cfg)
        former, adapter = cfg.MODEL.MASK_FORMER, cfg.MODEL.CLIP_ADAPTER
        backbone = build_backbone(cfg)
        clip = build_clip(
            adapter.CLIP_MODEL_NAME, adapter.CLIP_PRETRAINED, adapter.MASK_PROMPT_DEPTH
        )
        text_dim, width = clip.text_projection.shape[1], cfg.MODEL.SEM_SEG_HEAD.EMBEDDING_DIM
        if text_dim != width:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.EMBEDDING_DIM {width} must be the width of "
                f"{adapter.CLIP_MODEL_NAME}'s text features, {text_dim}"
            )
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            "criterion": SetCriterion(
                cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
                HungarianMatcher(
                    cost_class=1.0, cost_mask=former.MASK_WEIGHT, cost_dice=former.DICE_WEIGHT
                ),
                mask_weight=former.MASK_WEIGHT,
                dice_weight=former.DICE_WEIGHT,
                no_object_weight=former.NO_OBJECT_WEIGHT,
            ),
            "clip_adapter": ClipAdapter(
                clip,
                text_templates(adapter.TEXT_TEMPLATES, adapter.PREDEFINED_PROMPT_TEMPLATES),
                mask_prompts=adapter.MASK_PROMPT_FWD,
            ),
            "clip_ensemble": adapter.CLIP_ENSEMBLE,
            "clip_ensemble_weight": adapter.CLIP_ENSEMBLE_WEIGHT,
            "mask_threshold": adapter.MASK_THR,
            "mask_fill": adapter.MASK_FILL,
            "mask_expand_ratio": adapter.MASK_EXPAND_RATIO,
            "mask_matting": adapter.MASK_MATTING,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "size_divisibility": former.SIZE_DIVISIBILITY,
            "precision": cfg.MODEL.PRECISION,
        }

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
        """The ensemble of both classifications, or the only one that there is.

        Args:
            regions: of one image.
            clip: of the same regions.
            weight: in place of the model's own ``clip_ensemble_weight``.
        """
        if regions.clip_only:
            if clip is None:
                raise UserError(
                    "the proposals have no embeddings to be classified by; "
                    "set MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE True"
                )
            return clip_alone(clip.class_probs, clip.valid)
        if clip is None:
            return proposals_alone(regions.class_probs)
        weight = self.clip_ensemble_weight if weight is None else weight
        return ensemble(regions.class_probs, clip.class_probs, clip.valid, weight)

    def assemble(
        self, inputs: Inputs, regions: Regions, classified: Classified
    ) -> dict[str, Tensor]:
        """The segmentation of one image, as :meth:`forward` returns it."""
        return self.segment(inputs, [self.piece(regions, classified)], regions.image.shape[-2:])

    def piece(self, regions: Regions, classified: Classified) -> Piece:
        """What the regions of one look at an image add to its segmentation."""
        classified, masks = self._shown(regions, classified, self.mask_threshold)
        return Piece(classified.class_probs, masks[classified.queries])

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
        masks, shown = regions.masks, []
        for classified in alternatives:
            classified, masks = self._shown(regions, classified, threshold)
            shown.append(classified)
        # over the masks that any of them uses; no class is likely in a mask that one does not use
        used = torch.cat([classified.queries for classified in shown]).unique()
        class_probs = []
        for classified in shown:
            probs = classified.class_probs.new_zeros((len(masks), classified.class_probs.shape[1]))
            class_probs.append(probs.index_copy_(0, classified.queries, classified.class_probs))
        height, width = regions.image.shape[-2:]
        size = (inputs.get("height", height), inputs.get("width", width))
        labels = label_maps([probs[used] for probs in class_probs], masks[used], size)
        # an internal "others" is no label
        labels[labels >= len(regions.words)] = -1
        return labels

    def _shown(
        self, regions: Regions, classified: Classified, mask_threshold: float
    ) -> tuple[Classified, Tensor]:
        """The regions that are segmented by, and the masks of all regions as they are shown."""
        masks, classes = regions.masks, classified.class_probs.shape[1]
        if not self.best_proposals_only:
            return classified, masks
        words = len(regions.words)
        masks = (masks > mask_threshold).to(masks.dtype)
        visible = masks.flatten(1).any(dim=1)
        company = classes == 2 and (words == 1 or regions.words[-1] == OTHERS)
        choosing = 1 if company else classes
        return best_proposal_per_word(classified, visible, choosing), masks

    def segment(
        self, inputs: Inputs, pieces: Sequence[Piece], image_size: Sequence[int]
    ) -> dict[str, Tensor]:
        """The sum of pieces of one image, as :meth:`forward` returns it.

        Args:
            inputs: of the image.
            pieces: at least one.
            image_size: height and width of the output where ``inputs`` does not say.
        """
        size = (inputs.get("height", image_size[0]), inputs.get("width", image_size[1]))
        if inputs.get("output", "scores") == "scores":
            return {"sem_seg": class_scores(pieces, size)}
        labels, scores = label_map(pieces, size)
        # an internal "others" is no label
        labels[labels >= len(words_of(inputs))] = -1
        return {"labels": labels, "scores": scores.where(labels >= 0, 0)}

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
        padded = images.tensor.shape[-2:]
        return [
            self._regions(inputs, self._masks(logits, inputs["image"].shape[-2:], padded), queries)
            for inputs, logits, queries in zip(
                batched_inputs, proposals.mask_logits, proposals.embeddings, strict=True
            )
        ]

    def _given_regions(self, inputs: Inputs) -> Regions:
        given, size = inputs["proposals"], inputs["image"].shape[-2:]
        masks = given.masks.to(self.device, torch.float32)
        if len(masks) == 0:
            masks = masks.new_zeros((0, *size))
        elif masks.shape[-2:] != size:
            masks = F.interpolate(masks[None], size=size, mode="bilinear", antialias=True)[0]
        if given.embeddings is None:
            return self._regions(inputs, masks, None)
        embeddings = given.embeddings.to(self.device, torch.float32)
        width = self.clip_adapter.clip_model.text_projection.shape[1]
        if embeddings.shape[1] != width:
            raise UserError(
                f"the proposals' embeddings have {embeddings.shape[1]} numbers, this CLIP's text "
                f"features {width}; make the proposals with this model, or leave embeddings out"
            )
        return self._regions(inputs, masks, embeddings)

    def _regions(self, inputs: Inputs, masks: Tensor, embeddings: Tensor | None) -> Regions:
        words = words_of(inputs)
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

    def _masks(self, logits: Tensor, size: torch.Size, padded: torch.Size) -> Tensor:
        """Mask probabilities [Q, H, W] of the image without its padding."""
        enlarged = F.interpolate(logits[None].float(), size=padded, mode="bilinear")[0]
        return enlarged[:, : size[0], : size[1]].sigmoid()

    def _fill_colour(self) -> list[float]:
        if self.mask_fill == "zero":
            return [0.0, 0.0, 0.0]
        return self.clip_adapter.pixel_mean.flatten().tolist()

    def _losses(self, batched_inputs: list[Inputs]) -> dict[str, Tensor]:
        images = self._normalised(batched_inputs)
        proposals = self._proposals(images)
        text = self._text_features(words_of(batched_inputs[0]))
        layers = [
            (self.clip_adapter.similarity(layer.embeddings, text), layer.mask_logits)
            for layer in (proposals, *proposals.auxiliary)
        ]
        height, width = images.tensor.shape[-2:]
        targets = []
        for inputs in batched_inputs:
            instances = inputs["instances"].to(self.device)
            masks = getattr(instances.gt_masks, "tensor", instances.gt_masks)
            padding = (0, width - masks.shape[-1], 0, height - masks.shape[-2])
            targets.append({"labels": instances.gt_classes, "masks": F.pad(masks, padding)})
        return self.criterion(layers, targets)


@META_ARCH_REGISTRY.register()
def OVSegDEMO(cfg: CfgNode) -> OVSeg:
    """:class:`OVSeg` with ``best_proposals_only``, under the published name."""
    return OVSeg(cfg, best_proposals_only=True)


def words_of(inputs: Inputs) -> list[str]:
    """The words of an input dict: its own, or those of its dataset; a new list.

    Raises:
        UserError: when there are none.
    """
    if "class_names" in inputs:
        words = inputs["class_names"]
    else:
        words = MetadataCatalog.get(inputs["meta"]["dataset_name"]).stuff_classes
    words = [word.strip() for word in words]
    if not words:
        raise UserError("class_names is empty: give at least one word")
    return words
