"""Pixel decoders, and the head over them: against plain tensor operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_sem_seg_head
from maskformer_reference import (
    Weights,
    decoder,
    encoded_map,
    encoder,
    mask_features,
    places,
    randomise,
    sine_position,
)
from torch import Tensor

from ovseg.modeling.proposals import BasePixelDecoder, TransformerEncoderPixelDecoder

# the backbone's maps; their order is that of the strides, not of this table or of the names
SHAPES = {
    "deep": ShapeSpec(channels=12, stride=16),
    "stem": ShapeSpec(channels=4, stride=4),
    "last": ShapeSpec(channels=20, stride=32),
    "early": ShapeSpec(channels=8, stride=8),
}
# height and width of the maps of an image, finest first; sides need not halve evenly
SIZES = {
    "one place": [(8, 8), (4, 4), (2, 2), (1, 1)],
    "even": [(16, 24), (8, 12), (4, 6), (2, 3)],
    "uneven": [(17, 13), (9, 7), (5, 4), (3, 2)],
}
NORMS = pytest.mark.parametrize("norm", ["GN", ""], ids=["GroupNorm", "no norm"])
BOTH = pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


def backbone_maps(sizes: list[tuple[int, int]], shapes: dict[str, ShapeSpec]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    names = sorted(shapes, key=lambda name: shapes[name].stride)
    return {
        name: torch.randn(2, shapes[name].channels, *size, generator=generator, dtype=torch.float64)
        for name, size in zip(names, sizes, strict=True)
    }


@NORMS
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_fpn(sizes: list[tuple[int, int]], norm: str) -> None:
    model = BasePixelDecoder(SHAPES, conv_dim=32, mask_dim=6, norm=norm)
    randomise(model, seed=0)
    model = model.double().eval()
    features = backbone_maps(sizes, SHAPES)
    weights = Weights(model)
    with torch.no_grad():
        result = model(features)
    assert result.mask.shape == (2, 6, *sizes[0])
    close(result.mask, mask_features(weights, list(features.values())))
    assert result.encoded is None
    assert not weights.unread  # each weight has its published name, and none is spare


@NORMS
@BOTH
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_fpn_over_a_transformer_encoder(
    sizes: list[tuple[int, int]], layers: int, pre_norm: bool, norm: str
) -> None:
    model = TransformerEncoderPixelDecoder(
        SHAPES,
        conv_dim=32,
        mask_dim=6,
        norm=norm,
        heads=4,
        hidden=24,
        layers=layers,
        dropout=0.1,
        pre_norm=pre_norm,
    )
    randomise(model, seed=2)
    model = model.double().eval()
    features = backbone_maps(sizes, SHAPES)
    weights = Weights(model)
    maps = list(features.values())
    encoded = encoded_map(weights, maps[-1], layers=layers, heads=4, pre_norm=pre_norm)
    with torch.no_grad():
        result = model(features)
    assert result.encoded is not None
    assert result.encoded.shape == (2, 32, *sizes[-1])
    close(result.encoded, encoded)
    close(result.mask, mask_features(weights, [*maps[:-1], encoded]))
    assert not weights.unread


# --- the whole head, as a config names it


def mlp_layers(weights: Weights, name: str, layers: int, x: Tensor) -> Tensor:
    x = weights.linear(f"{name}.layers.0", x)
    for index in range(1, layers):
        x = weights.linear(f"{name}.layers.{index}", x.clamp(min=0))
    return x


def head_config(small_config: Callable[..., CfgNode], pre_norm: bool, in_feature: str) -> CfgNode:
    decoder_name = "TransformerEncoderPixelDecoder"
    return small_config(
        "MODEL.MASK_FORMER.PRE_NORM", str(pre_norm),
        "MODEL.MASK_FORMER.ENC_LAYERS", "1",
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", in_feature,
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", decoder_name,
        "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", "2",
    )  # fmt: skip


@BOTH
@pytest.mark.parametrize("in_feature", ["transformer_encoder", "res5"])
def test_head_that_a_config_names(
    in_feature: str, pre_norm: bool, small_config: Callable[..., CfgNode]
) -> None:
    """The keys of the config reach the part that they name."""
    cfg = head_config(small_config, pre_norm, in_feature)
    shapes = {
        f"res{level}": ShapeSpec(channels=4 * level, stride=2**level) for level in range(2, 6)
    }
    model = build_sem_seg_head(cfg, shapes)
    randomise(model, seed=3)
    model = model.double().eval()
    features = backbone_maps(SIZES["uneven"], shapes)
    with torch.no_grad():
        proposals = model(features)

    kind = {"heads": cfg.MODEL.MASK_FORMER.NHEADS, "pre_norm": pre_norm}
    maps = list(features.values())
    pixel = Weights(model.pixel_decoder)
    encoded = encoded_map(pixel, maps[-1], layers=2, **kind)
    pixels = mask_features(pixel, [*maps[:-1], encoded])
    weights = Weights(model.predictor)
    x = encoded if in_feature == "transformer_encoder" else maps[-1]
    position = places(sine_position(*x.shape[-2:], cfg.MODEL.MASK_FORMER.HIDDEN_DIM))
    if x.shape[1] != cfg.MODEL.MASK_FORMER.HIDDEN_DIM:
        x = weights.conv("input_proj", x)
    memory = encoder(weights, "transformer.encoder", places(x), position, layers=1, **kind)
    queries = weights["query_embed.weight"]
    decoded = decoder(weights, "transformer.decoder", memory, position, queries, layers=2, **kind)[
        -1
    ]
    embeddings = mlp_layers(weights, "class_embed", cfg.MODEL.SEM_SEG_HEAD.EMBED_LAYERS, decoded)
    masks = mlp_layers(weights, "mask_embed", 3, decoded)
    close(proposals.embeddings, embeddings)
    close(proposals.mask_logits, torch.einsum("bqc,bchw->bqhw", masks, pixels))
    assert not pixel.unread
    assert not weights.unread
