"""DETR's transformer: against plain tensor operations, and against PyTorch's own layers."""

from __future__ import annotations

import pytest
import torch
from maskformer_reference import Weights, decoder, encoder, places, randomise, sine_position
from torch import Tensor, nn

from ovseg.modeling.proposals.position_encoding import sine_position_encoding
from ovseg.modeling.proposals.transformer import Decoder, Encoder, EncoderOnly, Transformer

# dim, heads, hidden, encoder layers, decoder layers, queries, images, height, width
SIZES = [(8, 1, 16, 1, 1, 1, 1, 1, 1), (16, 2, 24, 2, 3, 5, 2, 3, 4), (32, 4, 8, 0, 2, 7, 1, 6, 5)]
BOTH = pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(size: tuple[int, ...], pre_norm: bool) -> Transformer:
    dim, heads, hidden, encoder_layers, decoder_layers, *_ = size
    model = Transformer(
        dim=dim,
        heads=heads,
        hidden=hidden,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        dropout=0.1,
        pre_norm=pre_norm,
    )
    randomise(model, seed=0)
    return model.double().eval()


@BOTH
@pytest.mark.parametrize("size", SIZES)
def test_transformer_is_that_of_the_paper(size: tuple[int, ...], pre_norm: bool) -> None:
    dim, heads, _, encoder_layers, decoder_layers, count, images, height, width = size
    model, x = build(size, pre_norm), noise(images, dim, height, width)
    position = noise(1, dim, height, width, seed=2)
    queries = noise(count, dim, seed=3)
    weights, place = Weights(model), places(position[0])
    kind = {"heads": heads, "pre_norm": pre_norm}
    memory = encoder(weights, "encoder", places(x), place, layers=encoder_layers, **kind)
    expected = decoder(weights, "decoder", memory, place, queries, layers=decoder_layers, **kind)
    with torch.no_grad():
        decoded = model(x, position, queries)
    assert decoded.shape == (decoder_layers, images, count, dim)
    close(decoded, expected)
    assert not weights.unread  # each weight has its published name, and none is spare


@BOTH
def test_positions_reach_queries_and_keys_but_no_values(pre_norm: bool) -> None:
    """Where all keys say the same, attention gives the values' mean, whatever the positions."""
    size = SIZES[1]
    model, queries = build(size, pre_norm), noise(5, 16, seed=3)
    first, second = noise(1, 16, 3, 4, seed=2), noise(1, 16, 3, 4, seed=4)
    flat, varied = noise(2, 16, 1, 1).expand(2, 16, 3, 4), noise(2, 16, 3, 4)
    with torch.no_grad():
        close(model(flat, first, queries), model(flat, second, queries))
        difference = model(varied, first, queries) - model(varied, second, queries)
    assert difference.abs().max() > 1e-3


@BOTH
@pytest.mark.parametrize("layers", [1, 3])
def test_encoder_without_positions_is_pytorchs(layers: int, pre_norm: bool) -> None:
    ours = Encoder(16, 4, 24, layers, 0.0, pre_norm)
    randomise(ours, seed=5)
    layer = nn.TransformerEncoderLayer(
        16, 4, 24, dropout=0.0, batch_first=True, norm_first=pre_norm
    )
    theirs = nn.TransformerEncoder(
        layer, layers, norm=nn.LayerNorm(16) if pre_norm else None, enable_nested_tensor=False
    )
    theirs.load_state_dict(ours.state_dict())
    x = noise(2, 6, 16)
    ours, theirs = ours.double(), theirs.double()
    close(ours(x, torch.zeros(1, 6, 16)), theirs(x))


@BOTH
@pytest.mark.parametrize("layers", [1, 3])
def test_decoder_without_positions_is_pytorchs(layers: int, pre_norm: bool) -> None:
    ours = Decoder(16, 4, 24, layers, 0.0, pre_norm)
    randomise(ours, seed=6)
    layer = nn.TransformerDecoderLayer(
        16, 4, 24, dropout=0.0, batch_first=True, norm_first=pre_norm
    )
    theirs = nn.TransformerDecoder(layer, layers, norm=nn.LayerNorm(16))
    theirs.load_state_dict(ours.state_dict())
    memory = noise(2, 6, 16)
    ours, theirs = ours.double(), theirs.double()
    nowhere = torch.zeros(2, 5, 16, dtype=torch.float64)
    decoded = ours(memory, torch.zeros(1, 6, 16), nowhere)
    close(decoded[-1], theirs(nowhere, memory))


@BOTH
def test_encoder_over_a_map(pre_norm: bool) -> None:
    model = EncoderOnly(16, 2, 24, 2, 0.1, pre_norm)
    randomise(model, seed=7)
    model = model.double().eval()
    x, position = noise(2, 16, 3, 5), noise(1, 16, 3, 5, seed=2)
    weights = Weights(model)
    expected = encoder(
        weights,
        "encoder",
        places(x),
        places(position[0]),
        layers=2,
        heads=2,
        pre_norm=pre_norm,
    )
    with torch.no_grad():
        close(places(model(x, position)), expected)
    assert not weights.unread


@pytest.mark.parametrize(("height", "width", "channels"), [(1, 1, 4), (3, 7, 12), (9, 4, 32)])
def test_sine_position_encoding(height: int, width: int, channels: int) -> None:
    encoded = sine_position_encoding(torch.zeros(2, 5, height, width), channels)
    assert encoded.shape == (1, channels, height, width)
    assert encoded.dtype == torch.float32
    close(encoded[0], sine_position(height, width, channels))
