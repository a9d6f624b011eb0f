"""OpenSeg ("Scaling Open-Vocabulary Image Segmentation with Image-Level Labels", ECCV 2022).

Kept: queries give masks of no class, and no class name is read in training. A region's feature is
the mean of semantic features over its mask. Words of captions are grounded in regions: a word
attends to the regions by a softmax, a caption fits an image by the mean over its words, and
captions and images are contrasted both ways.

Simplified: MaskFormer's decoder makes the masks, and they are learned as its masks are, matched one
to one without classes, by focal and dice loss. In the paper a label's mask is learned by the query
that overlaps it best, by dice loss alone; here all queries stayed alike then. Backbone, batches and
captions are those of the comparison, in place of EfficientNet, 1024 images and Localized
Narratives; that an image still has 1024 captions to choose from, others are drawn from the training
(``INPUT.OTHER_CAPTIONS``). One learned temperature is that of the attention and of the contrast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn

from ovseg.errors import UserError
from ovseg.modeling import OVSeg
from ovseg.modeling.build import build_matcher, build_parts
from ovseg.modeling.criterion import MaskCriterion, Targets, losses_of_layers, padded_targets
from ovseg.modeling.matcher import HungarianMatcher
from ovseg.modeling.proposals.head import OpenVocabMaskFormerHead
from ovseg.modeling.proposals.mask_decoder import OpenVocabTransformerPredictor
from ovseg.modeling.proposals.pixel_decoder import BasePixelDecoder
from ovseg.structures import Proposals

# the learned temperature begins as CLIP's did, and may not grow beyond what CLIP's may
_FIRST_SCALE, _LARGEST_SCALE = 1 / 0.07, 100.0


@SEM_SEG_HEADS_REGISTRY.register()
class RegionPoolingHead(OpenVocabMaskFormerHead):
    """MaskFormer's head whose embeddings are pooled from a second map of the pixel decoder."""

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        head, in_feature = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
        widths = [head.MASK_DIM, head.EMBEDDING_DIM]
        wanted = BasePixelDecoder.from_config(cfg, input_shape) | {"mask_dim": sum(widths)}
        predictor = OpenVocabTransformerPredictor(cfg, input_shape[in_feature].channels)
        predictor.class_embed = nn.Identity()  # a query says nothing of its class
        super().__init__(
            pixel_decoder=BasePixelDecoder(**wanted), predictor=predictor, in_feature=in_feature
        )
        self.widths = widths

    def forward(self, features: dict[str, Tensor]) -> Proposals:
        for_masks, meanings = self.pixel_decoder(features).mask.split(self.widths, dim=1)
        proposals: Proposals = self.predictor(features[self.in_feature], for_masks)
        proposals.embeddings = pool_regions(proposals.mask_logits, meanings)
        return proposals


def pool_regions(mask_logits: Tensor, features: Tensor) -> Tensor:
    """The mean features (B, Q, D) over soft masks.

    Args:
        mask_logits: (B, Q, h, w).
        features: (B, D, h, w).
    """
    # sums over pixels exceed what fp16 can hold, which mixed precision would take
    with torch.autocast(mask_logits.device.type, enabled=False):
        masks = mask_logits.float().sigmoid()
        total = torch.einsum("bqhw,bdhw->bqd", masks, features.float())
        return total / masks.sum(dim=(2, 3)).clamp(min=1e-6)[..., None]


@META_ARCH_REGISTRY.register()
class OpenSeg(OVSeg):
    """OVSeg's inference without crops, over regions that were learned from masks and captions."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        if cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE:
            raise UserError(
                "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE True: OpenSeg shows CLIP no crops; set it to "
                "False"
            )
        former = cfg.MODEL.MASK_FORMER
        criterion = OpenSegCriterion(
            build_matcher(cfg), mask_weight=former.MASK_WEIGHT, dice_weight=former.DICE_WEIGHT
        )
        return {**build_parts(cfg), "criterion": criterion}

    def __init__(self, *args: Any, **parts: Any) -> None:
        """As :class:`OVSeg`; its criterion is an :class:`OpenSegCriterion`."""
        super().__init__(*args, **parts)
        # there is no "no object" to learn: its similarity to everything is 0
        nothing = self.clip_adapter.non_object_embedding.requires_grad_(False)
        nothing.zero_()

    def _losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        if comm.get_world_size() > 1:
            raise UserError(
                "OpenSeg contrasts all captions of a batch, so one process trains it: leave out "
                "--num-gpus, --num-processes or torchrun"
            )
        if any("caption_words" not in inputs for inputs in batched_inputs):
            raise UserError(
                "OpenSeg learns from captions: set INPUT.CAPTION_WORDS to the file that "
                "open_clip_training/caption_words.py makes"
            )
        images = self._normalised(batched_inputs)
        proposals = self._proposals(images)
        truth = [inputs["instances"].to(self.device) for inputs in batched_inputs]
        captions = [inputs["caption_words"] for inputs in batched_inputs]
        # what nothing can be told of by is no candidate
        others = [words for inputs in batched_inputs for words in inputs["other_captions"] if words]
        words = sorted({word for caption in (*captions, *others) for word in caption})
        places = {word: place for place, word in enumerate(words)}
        texts = self.clip_adapter.no_features()  # of captions that name nothing
        if words:
            texts = self.clip_adapter.text_features(words)[:-1]
        return self.criterion(
            [layer.mask_logits for layer in (proposals, *proposals.auxiliary)],
            padded_targets(truth, images.tensor.shape[-2:]),
            F.normalize(proposals.embeddings, dim=-1),
            texts,
            [[places[word] for word in caption] for caption in captions],
            [[places[word] for word in caption] for caption in others],
        )


class OpenSegCriterion(MaskCriterion):
    """The losses of masks and that of words in regions."""

    def __init__(
        self, matcher: HungarianMatcher, *, mask_weight: float, dice_weight: float
    ) -> None:
        super().__init__(matcher, mask_weight=mask_weight, dice_weight=dice_weight)
        self.log_scale = nn.Parameter(torch.tensor(_FIRST_SCALE).log())

    def forward(
        self,
        layers: Sequence[Tensor],
        targets: Targets,
        regions: Tensor,
        texts: Tensor,
        captions: Sequence[Sequence[int]],
        others: Sequence[Sequence[int]] = (),
    ) -> dict[str, Tensor]:
        """
        Args:
            layers: mask logits (B, Q, h, w) of each decoder layer, the last layer first.
            targets: see :class:`ovseg.modeling.matcher.HungarianMatcher`; labels are not read.
            regions: unit features (B, Q, D).
            texts: unit features (U, D) of the distinct words of the batch.
            captions, others: see :func:`grounding_loss`.
        """
        count = max(sum(len(target["masks"]) for target in targets), 1)
        losses = losses_of_layers(
            self.mask_losses(masks, targets, self.matcher(None, masks, targets), count)
            for masks in layers
        )
        scale = self.log_scale.exp().clamp(max=_LARGEST_SCALE)
        return losses | {"loss_grounding": grounding_loss(regions, texts, captions, scale, others)}


def grounding_loss(
    regions: Tensor,
    texts: Tensor,
    captions: Sequence[Sequence[int]],
    scale: Tensor,
    others: Sequence[Sequence[int]] = (),
) -> Tensor:
    """Contrast of the batch's images and captions, each word grounded in its regions.

    Args:
        regions: unit features (B, Q, D) of the regions of B images.
        texts: unit features (U, D) of words.
        captions: of each image the rows of its words in ``texts``. One without words is no
            candidate, nor is its image to find one. Captions of the same words are right for each
            other's images, so they do not count as wrong there.
        scale: of the cosines, one over the temperature.
        others: captions of further images, the rows of their words, which an image of the batch
            must not be taken for.
    """
    told = [image for image, words in enumerate(captions) if words]
    if not told:
        return (regions.sum() + scale) * 0
    cosines = torch.einsum("bqd,ud->bqu", regions, texts)
    grounded = ((scale * cosines).softmax(dim=1) * cosines).sum(dim=1)  # (B, U)
    candidates = [*(captions[image] for image in told), *others]
    shares = texts.new_zeros(len(candidates), len(texts))
    for row, words in zip(shares, candidates, strict=True):
        row[list(words)] = 1 / len(words)
    logits = scale * grounded @ shares.T  # (B, candidates)
    # captions that are as right as an image's own are no candidates of it
    named = [frozenset(words) for words in candidates]
    alike = torch.tensor([[words == other for other in named] for words in named[: len(told)]])
    alike.fill_diagonal_(False)
    logits[told] = logits[told].masked_fill(alike.to(logits.device), -torch.inf)
    own = torch.tensor(told, device=logits.device)
    to_image = F.cross_entropy(logits[:, : len(told)].T, own)
    to_caption = F.cross_entropy(logits[own], torch.arange(len(told), device=logits.device))
    return to_image + to_caption
