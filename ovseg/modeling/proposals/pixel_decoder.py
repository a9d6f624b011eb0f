"""Pixel decoders: from the backbone's maps to one map of mask features at stride 4."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.nn import weight_init
from torch import Tensor, nn

from .position_encoding import sine_position_encoding
from .transformer import EncoderOnly


class PixelFeatures(NamedTuple):
    """``mask``: [B, mask_dim, H/4, W/4]; ``encoded``: [B, conv_dim, H/32, W/32] or None."""

    mask: Tensor
    encoded: Tensor | None


@SEM_SEG_HEADS_REGISTRY.register()
class BasePixelDecoder(nn.Module):
    """FPN: top-down, each finer backbone map added to the enlarged coarser one."""

    @configurable
    def __init__(
        self, input_shape: dict[str, ShapeSpec], *, conv_dim: int, mask_dim: int, norm: str
    ) -> None:
        """
        Args:
            input_shape: channels and stride of the backbone's maps by name.
            conv_dim: width inside the decoder.
            mask_dim: width of the mask features.
            norm: detectron2's name of a norm layer; "" for none.
        """
        super().__init__()
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride)
        self.top = len(self.in_features)
        for level, name in enumerate(self.in_features, start=1):
            width = input_shape[name].channels
            if level < self.top:
                self.add_module(
                    f"adapter_{level}", conv_layer(width, conv_dim, 1, norm, relu=False)
                )
                width = conv_dim
            self.add_module(f"layer_{level}", conv_layer(width, conv_dim, 3, norm))
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=3, padding=1)
        weight_init.c2_xavier_fill(self.mask_features)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, object]:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": {k: v for k, v in input_shape.items() if k in head.IN_FEATURES},
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
        }

    def forward(self, features: dict[str, Tensor]) -> PixelFeatures:
        encoded = self.encode(features[self.in_features[-1]])
        y = getattr(self, f"layer_{self.top}")(encoded)
        for level in range(self.top - 1, 0, -1):
            lateral = getattr(self, f"adapter_{level}")(features[self.in_features[level - 1]])
            y = lateral + F.interpolate(y, size=lateral.shape[-2:], mode="nearest")
            y = getattr(self, f"layer_{level}")(y)
        return PixelFeatures(self.mask_features(y), self.encoded_for_queries(encoded))

    def encode(self, x: Tensor) -> Tensor:
        """What happens to the coarsest map before the top-down pass: here nothing."""
        return x

    def encoded_for_queries(self, encoded: Tensor) -> Tensor | None:
        """The encoded map where queries may attend to it; None in a plain FPN."""
        return None


@SEM_SEG_HEADS_REGISTRY.register()
class TransformerEncoderPixelDecoder(BasePixelDecoder):
    """The FPN with a transformer encoder over the coarsest map."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        conv_dim: int,
        mask_dim: int,
        norm: str,
        heads: int,
        hidden: int,
        layers: int,
        dropout: float,
        pre_norm: bool,
    ) -> None:
        super().__init__(input_shape, conv_dim=conv_dim, mask_dim=mask_dim, norm=norm)
        width = input_shape[self.in_features[-1]].channels
        self.input_proj = Conv2d(width, conv_dim, kernel_size=1)
        weight_init.c2_xavier_fill(self.input_proj)
        self.transformer = EncoderOnly(conv_dim, heads, hidden, layers, dropout, pre_norm)
        self.add_module(f"layer_{self.top}", conv_layer(conv_dim, conv_dim, 3, norm))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, object]:
        former = cfg.MODEL.MASK_FORMER
        return {
            **super().from_config(cfg, input_shape),
            "heads": former.NHEADS,
            "hidden": former.DIM_FEEDFORWARD,
            "layers": cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS,
            "dropout": former.DROPOUT,
            "pre_norm": former.PRE_NORM,
        }

    def encode(self, x: Tensor) -> Tensor:
        projected = self.input_proj(x)
        return self.transformer(projected, sine_position_encoding(projected, projected.shape[1]))

    def encoded_for_queries(self, encoded: Tensor) -> Tensor | None:
        return encoded


def conv_layer(in_dim: int, out_dim: int, kernel: int, norm: str, relu: bool = True) -> Conv2d:
    """A convolution of stride 1 that keeps the size, with its norm and, if asked for, a ReLU."""
    conv = Conv2d(
        in_dim,
        out_dim,
        kernel_size=kernel,
        padding=kernel // 2,
        bias=norm == "",
        norm=get_norm(norm, out_dim),
        activation=F.relu if relu else None,
    )
    weight_init.c2_xavier_fill(conv)
    return conv
