"""The proposal head: pixel decoder and mask decoder over the backbone's maps."""

from __future__ import annotations

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ovseg.structures import Proposals

from .mask_decoder import OpenVocabTransformerPredictor

# the name by which a config says that queries attend to the pixel decoder's encoded map
ENCODED = "transformer_encoder"


@SEM_SEG_HEADS_REGISTRY.register()
class OpenVocabMaskFormerHead(nn.Module):
    """MaskFormer's head with class embeddings in place of class logits (paper section 3.1)."""

    @configurable
    def __init__(
        self,
        *,
        pixel_decoder: nn.Module,
        predictor: OpenVocabTransformerPredictor,
        in_feature: str,
    ) -> None:
        """
        Args:
            pixel_decoder: makes mask features of the backbone's maps.
            predictor: makes proposals of a map and the mask features.
            in_feature: the map that queries attend to: a backbone output or
                ``"transformer_encoder"``.
        """
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor
        self.in_feature = in_feature

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, object]:
        in_feature = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
        decoder_name = cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME
        if in_feature == ENCODED:
            in_channels = cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM
        else:
            in_channels = input_shape[in_feature].channels
        return {
            "pixel_decoder": SEM_SEG_HEADS_REGISTRY.get(decoder_name)(cfg, input_shape),
            "predictor": OpenVocabTransformerPredictor(cfg, in_channels),
            "in_feature": in_feature,
        }

    def forward(self, features: dict[str, Tensor]) -> Proposals:
        pixels = self.pixel_decoder(features)
        x = pixels.encoded if self.in_feature == ENCODED else features[self.in_feature]
        if x is None:
            raise ValueError(
                f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE {ENCODED!r} needs "
                "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME TransformerEncoderPixelDecoder"
            )
        return self.predictor(x, pixels.mask)
