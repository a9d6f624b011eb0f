"""Heads that give every pixel features, by the names that ``MODEL.SEM_SEG_HEAD.NAME`` takes.

All take detectron2's dict of maps and return one map (B, channels, h, w); ``channels`` is an
attribute.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.projects.deeplab import DeepLabV3PlusHead
from torch import Tensor, nn

from ovseg.modeling.proposals.pixel_decoder import BasePixelDecoder, conv_layer


@SEM_SEG_HEADS_REGISTRY.register()
class FpnPixelHead(nn.Module):
    """The FPN that OVSeg's mask features come from; ``CONVS_DIM`` channels at stride 4."""

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        super().__init__()
        self.channels = cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM
        wanted = {**BasePixelDecoder.from_config(cfg, input_shape), "mask_dim": self.channels}
        self.decoder = BasePixelDecoder(**wanted)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        mask: Tensor = self.decoder(features).mask
        return F.relu(mask)


@SEM_SEG_HEADS_REGISTRY.register()
class FcnPixelHead(nn.Module):
    """The FCN-8s head ("Fully Convolutional Networks for Semantic Segmentation", CVPR 2015).

    Kept: two convolutions with dropout over the coarsest map, and skips to the two finer ones. FCN
    adds up the scores that a 1 x 1 convolution makes of each of the three. Scores are linear in
    what they are made of, so here the maps are laid side by side at the finest stride, and the one
    1 x 1 convolution that follows does the same. Simplified: enlarging is bilinear and not learned
    (FCN starts from that), and the two convolutions have ``CONVS_DIM`` channels and normalisation
    in place of 4096.
    """

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        super().__init__()
        head = cfg.MODEL.SEM_SEG_HEAD
        width, norm = head.CONVS_DIM, head.NORM
        self.in_features = sorted(head.IN_FEATURES, key=lambda name: input_shape[name].stride)[-3:]
        coarsest = input_shape[self.in_features[-1]].channels
        self.convs = nn.Sequential(
            *(
                layer
                for kernel, channels in ((3, coarsest), (1, width))
                for layer in (conv_layer(channels, width, kernel, norm), nn.Dropout2d(0.5))
            )
        )
        self.channels = width + sum(input_shape[name].channels for name in self.in_features[:-1])

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        finest, *others = (features[name] for name in self.in_features[:-1])
        maps = [*others, self.convs(features[self.in_features[-1]])]
        size = finest.shape[-2:]
        return torch.cat([finest, *(F.interpolate(x, size, mode="bilinear") for x in maps)], dim=1)


@SEM_SEG_HEADS_REGISTRY.register()
class DeepLabPixelHead(DeepLabV3PlusHead):
    """detectron2's DeepLabV3+ head (ECCV 2018) without its last convolution.

    Simplified: the image pooling of its ASPP is over the whole map, so that images of any size have
    it.
    """

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        settings = DeepLabV3PlusHead.from_config(cfg, input_shape)
        super().__init__(**{**settings, "num_classes": None, "train_size": None})
        self.channels = cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM
