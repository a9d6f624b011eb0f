"""From a feature map and mask features to class embeddings and masks, one of each a query."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d
from fvcore.nn import weight_init
from torch import Tensor, nn

from ovseg.structures import Proposals

from .position_encoding import sine_position_encoding
from .transformer import Transformer


class Mlp(nn.Module):
    """Linear layers with ReLU between."""

    def __init__(self, in_dim: int, hidden: int, out_dim: int, layers: int) -> None:
        super().__init__()
        widths = [in_dim, *[hidden] * (layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class OpenVocabTransformerPredictor(nn.Module):
    """Transformer decoder with an MLP for class embeddings and one for masks."""

    @configurable
    def __init__(
        self,
        in_channels: int,
        *,
        hidden_dim: int,
        num_queries: int,
        heads: int,
        dropout: float,
        feedforward: int,
        encoder_layers: int,
        decoder_layers: int,
        pre_norm: bool,
        deep_supervision: bool,
        mask_dim: int,
        embedding_dim: int,
        embed_hidden_dim: int,
        embed_layers: int,
        enforce_input_proj: bool,
    ) -> None:
        """
        Args:
            in_channels: width of the map that the queries attend to.
            embedding_dim: width of CLIP's text features.
            embed_hidden_dim, embed_layers: the MLP of the class embedding.
            deep_supervision: return the proposals of every decoder layer.
        """
        super().__init__()
        self.deep_supervision = deep_supervision
        self.hidden_dim = hidden_dim
        self.transformer = Transformer(
            dim=hidden_dim,
            heads=heads,
            hidden=feedforward,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            dropout=dropout,
            pre_norm=pre_norm,
        )
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.input_proj: nn.Module = nn.Identity()
        if in_channels != hidden_dim or enforce_input_proj:
            self.input_proj = Conv2d(in_channels, hidden_dim, kernel_size=1)
            weight_init.c2_xavier_fill(self.input_proj)
        self.mask_embed = Mlp(hidden_dim, hidden_dim, mask_dim, 3)
        self.class_embed = Mlp(hidden_dim, embed_hidden_dim, embedding_dim, embed_layers)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict[str, object]:
        former, head = cfg.MODEL.MASK_FORMER, cfg.MODEL.SEM_SEG_HEAD
        return {
            "in_channels": in_channels,
            "hidden_dim": former.HIDDEN_DIM,
            "num_queries": former.NUM_OBJECT_QUERIES,
            "heads": former.NHEADS,
            "dropout": former.DROPOUT,
            "feedforward": former.DIM_FEEDFORWARD,
            "encoder_layers": former.ENC_LAYERS,
            "decoder_layers": former.DEC_LAYERS,
            "pre_norm": former.PRE_NORM,
            "deep_supervision": former.DEEP_SUPERVISION,
            "mask_dim": head.MASK_DIM,
            "embedding_dim": head.EMBEDDING_DIM,
            "embed_hidden_dim": head.EMBED_HIDDEN_DIM,
            "embed_layers": head.EMBED_LAYERS,
            "enforce_input_proj": former.ENFORCE_INPUT_PROJ,
        }

    def forward(self, x: Tensor, mask_features: Tensor) -> Proposals:
        """``x``: (B, C, h, w); ``mask_features``: [B, mask_dim, H/4, W/4]."""
        position = sine_position_encoding(x, self.hidden_dim)
        decoded = self.transformer(self.input_proj(x), position, self.query_embed.weight)
        if not (self.deep_supervision and self.training):
            decoded = decoded[-1:]  # only the loss looks at earlier layers
        embeddings = self.class_embed(decoded)
        masks = torch.einsum("lbqc,bchw->lbqhw", self.mask_embed(decoded), mask_features)
        layers = [Proposals(e, m, []) for e, m in zip(embeddings, masks, strict=True)]
        layers[-1].auxiliary = layers[:-1]
        return layers[-1]
