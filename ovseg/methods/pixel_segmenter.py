"""Methods that classify pixels: image -> backbone -> pixel features -> logits -> labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone, build_sem_seg_head
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ovseg.errors import UserError
from ovseg.modeling.build import build_adapter, build_fitting_clip, config_errors
from ovseg.modeling.class_names import common_vocabulary, vocabulary_of
from ovseg.modeling.criterion import share_of_batch
from ovseg.modeling.seen_classes import training_classes
from ovseg.vocabulary import Vocabulary

from .build import build_classifier
from .generated_features import IGNORED, GeneratedFeatures
from .pixel_classifiers import NEVER, WordVectors

# elements of the largest array while labels are found
_TILE = 2**24


@dataclass
class EncodedPixels:
    """An image before its class names are known.

    Attributes:
        features: (1, channels, h, w), of the padded image.
        padded, shown: height and width with and without padding.
    """

    features: Tensor
    padded: tuple[int, ...]
    shown: tuple[int, ...]


@META_ARCH_REGISTRY.register()
class PixelSegmenter(nn.Module):
    """FCN, DeepLabV3+, SPNet, ZS3Net and LSeg: they differ in their head and classifier.

    It takes what :class:`ovseg.modeling.OVSeg` takes, and gives the same.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        classifier: nn.Module,
        clip_adapter: nn.Module | None,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
    ) -> None:
        """
        Args:
            backbone: gives maps of an image.
            sem_seg_head: makes pixel features of them, see :mod:`ovseg.methods.pixel_heads`.
            classifier: makes logits of them, see :mod:`ovseg.methods.pixel_classifiers`.
            clip_adapter: whose text tower the classifier uses; None: none.
            num_classes: of the training.
            pixel_mean, pixel_std: of the image's channels, 0..255.
            size_divisibility: images are padded to a multiple of it.
        """
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.classifier = classifier
        self.clip_adapter = clip_adapter
        if clip_adapter is not None:  # nothing is learned of "no object" here
            clip_adapter.requires_grad_(False)
        self.num_classes = num_classes
        own = backbone.size_divisibility
        self.size_divisibility = size_divisibility if size_divisibility > 0 else own
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        _refuse_views(cfg)
        method = cfg.MODEL.METHOD
        classes = training_classes(cfg.DATASETS.TRAIN)
        if len(classes) != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}: "
                f"DATASETS.TRAIN {', '.join(cfg.DATASETS.TRAIN)} has {len(classes)} classes; give "
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {len(classes)}"
            )
        with config_errors():
            backbone = build_backbone(cfg)
            head: Any = build_sem_seg_head(cfg, backbone.output_shape())
        adapter = (
            None if method.CLASSIFIER == "fixed" else build_adapter(cfg, build_fitting_clip(cfg))
        )
        return {
            "backbone": backbone,
            "sem_seg_head": head,
            "classifier": build_classifier(cfg, head.channels, classes, adapter),
            "clip_adapter": adapter,
            "num_classes": len(classes),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "size_divisibility": cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY,
        }  # fmt: skip

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[Any]:
        """Segment a batch, or in training return its losses; see :meth:`OVSeg.forward`.

        Raises:
            UserError: there are other class names than the classifier was made for.
        """
        if not self.training:
            encoded = self.encode(batched_inputs)
            return [self.segment(*each) for each in zip(batched_inputs, encoded, strict=True)]
        images = self._normalised(batched_inputs)
        vocabulary = common_vocabulary(batched_inputs)
        if len(vocabulary) != self.num_classes:
            raise UserError(
                f"the training has {len(vocabulary)} classes, and MODEL.SEM_SEG_HEAD.NUM_CLASSES "
                f"is {self.num_classes}; set it to {len(vocabulary)}"
            )
        # the layout that convolutions are fastest in
        tensor = images.tensor.contiguous(memory_format=torch.channels_last)
        features = self.sem_seg_head(self.backbone(tensor))
        logits = self.classifier(features, vocabulary.names)
        logits = logits.contiguous(memory_format=torch.channels_last)
        logits = F.interpolate(logits, tensor.shape[-2:], mode="bilinear")
        truth = [inputs["instances"].to(self.device) for inputs in batched_inputs]
        labels = label_maps_of(truth, tensor.shape[-2:])
        losses = {"loss_sem_seg": pixel_loss(logits, labels)}
        if isinstance(self.classifier, GeneratedFeatures):
            size = features.shape[-2:]
            small = F.interpolate(labels[:, None].float(), size, mode="nearest")[:, 0].long()
            losses |= self.classifier.losses(features, small)
        return losses

    def _normalised(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        images = [inputs["image"].to(self.device) for inputs in batched_inputs]
        normalised = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(normalised, self.size_divisibility)

    def encode(self, batched_inputs: Sequence[dict[str, Any]]) -> list[EncodedPixels]:
        """What does not depend on class names, each image by itself; see :meth:`OVSeg.encode`."""
        return [self._encode(inputs) for inputs in batched_inputs]

    def _encode(self, inputs: dict[str, Any]) -> EncodedPixels:
        images = self._normalised([inputs])
        features = self.sem_seg_head(self.backbone(images.tensor))
        return EncodedPixels(features, tuple(images.tensor.shape[-2:]), images.image_sizes[0])

    def segment(
        self, inputs: dict[str, Any], encoded: EncodedPixels, **_: None
    ) -> dict[str, Tensor]:
        """Segment an encoded image as :meth:`forward` does; settings of OVSeg's are all None."""
        vocabulary = vocabulary_of(inputs)
        logits = self.classifier(encoded.features, vocabulary.words)
        if isinstance(self.classifier, WordVectors):
            logits = self.classifier.calibrated(logits, vocabulary)
        # where no word can be found there is no class
        probs = logits.softmax(dim=1).masked_fill(logits <= NEVER, 0)[0]
        padded, shown = encoded.padded, encoded.shown
        size = inputs.get("height", shown[0]), inputs.get("width", shown[1])
        if inputs.get("output", "scores") == "scores":
            scores = torch.cat(list(_resized(probs, padded, shown, size)))
            return {"sem_seg": vocabulary.competing_scores(scores)}
        return _best(_resized(probs, padded, shown, size), vocabulary)


def label_maps_of(instances: Sequence[Instances], size: Sequence[int]) -> Tensor:
    """Label maps int64 (B, *size) of the masks of classes, -1 where there is none."""
    labels = []
    for truth in instances:
        image = truth.gt_classes.new_full(tuple(size), IGNORED)
        height, width = truth.image_size
        for label, mask in zip(truth.gt_classes, truth.gt_masks, strict=True):
            image[:height, :width][mask] = label
        labels.append(image)
    return torch.stack(labels)


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of the labelled pixels of the whole batch, 0 where there are none.

    The mean of several processes' results is that of all their images.

    Args:
        logits: (B, C, H, W).
        labels: int64 (B, H, W), -1 where nothing is labelled.
    """
    pixels = logits.movedim(1, -1).flatten(0, 2)  # classes side by side: a third faster on CPUs
    total = F.cross_entropy(pixels, labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / share_of_batch(float((labels != IGNORED).sum()), 1.0, labels.device)


def _resized(
    probs: Tensor, padded: Sequence[int], shown: Sequence[int], size: Sequence[int]
) -> Any:
    """The maps (W, h, w) of a padded image at the size of the output, some words at a time."""
    largest = max(padded[0] * padded[1], size[0] * size[1])
    for part in probs.split(max(1, _TILE // largest)):
        whole = F.interpolate(part[None], tuple(padded), mode="bilinear")
        whole = whole[..., : shown[0], : shown[1]]
        yield F.interpolate(whole, tuple(size), mode="bilinear")[0]


def _best(parts: Any, vocabulary: Vocabulary) -> dict[str, Tensor]:
    labels: Tensor | None = None
    best: Tensor | None = None
    first = 0
    for part in parts:
        found, place = part.max(dim=0)
        place = (place + first).int()
        first += len(part)
        if best is None or labels is None:
            best, labels = found, place
            continue
        better = found > best
        best, labels = torch.where(better, found, best), torch.where(better, place, labels)
    assert best is not None
    assert labels is not None
    labels = vocabulary.class_labels(labels.masked_fill(best == 0, -1))
    return {"labels": labels, "scores": best.masked_fill(labels < 0, 0)}


def _refuse_views(cfg: CfgNode) -> None:
    """Refuse what only OVSeg's proposals can do.

    Raises:
        UserError: it is asked for.
    """
    test, former = cfg.TEST, cfg.MODEL.MASK_FORMER.TEST
    for key, value in (
        ("TEST.AUG.ENABLED", test.AUG.ENABLED),
        ("TEST.SLIDING_WINDOW", test.SLIDING_WINDOW),
        ("TEST.DENSE_CRF", test.DENSE_CRF),
        ("TEST.REJECT", test.REJECT),
        ("TEST.LOAD_PROPOSALS", test.LOAD_PROPOSALS),
        ("TEST.SAVE_PROPOSALS", test.SAVE_PROPOSALS),
        ("TEST.MIN_CLASS_AREA", test.MIN_CLASS_AREA),
        ("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", former.PANOPTIC_ON),
        ("MODEL.MASK_FORMER.TEST.INSTANCE_ON", former.INSTANCE_ON),
    ):
        if value:
            raise UserError(
                f"{key} {value}: a PixelSegmenter has no proposals; leave it out, or set "
                "MODEL.META_ARCHITECTURE OVSeg"
            )
