"""Backbones: Swin here; ResNet-101c is detectron2's ``build_resnet_deeplab_backbone``."""

from detectron2.projects import deeplab as _deeplab  # noqa: F401  (registers the ResNet)

from .swin import D2SwinTransformer

__all__ = ["D2SwinTransformer"]
