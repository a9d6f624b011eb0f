"""Proposals: pixel decoder, transformer and mask decoder (MaskFormer, NeurIPS 2021)."""

from .head import OpenVocabMaskFormerHead
from .pixel_decoder import BasePixelDecoder, TransformerEncoderPixelDecoder

__all__ = ["BasePixelDecoder", "OpenVocabMaskFormerHead", "TransformerEncoderPixelDecoder"]
