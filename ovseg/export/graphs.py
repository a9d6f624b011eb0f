"""The networks of a model as modules that can be traced, from tensors to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ovseg.export.swin import gathered
from ovseg.modeling import OVSeg
from ovseg.modeling.clip import ClipAdapter
from ovseg.modeling.clip.compact_embedding import CompactTokenEmbedding
from ovseg.modeling.clip.construction import TOKENS
from ovseg.modeling.clip.encoder import CausalTextEncoder
from ovseg.modeling.clip.shared_pass import SharedPass, region_features

# of the examples: no length is 1, which would be taken for a constant, and no two are the same
_BATCH, _ROWS, _COLUMNS = 2, 3, 4
_MOST = 1 << 14  # the longest side of an image in pixels, and the largest batch


class ProposalGraph(nn.Module):
    """Image to mask logits and class embeddings: backbone, pixel decoder, transformer."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: OVSeg) -> None:
        """Share the networks of ``model``."""
        super().__init__()
        self.backbone = gathered(model.backbone)
        self.head = model.sem_seg_head
        self.register_buffer("mean", model.pixel_mean.clone(), persistent=False)
        self.register_buffer("std", model.pixel_std.clone(), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            images: float32 (B, 3, H, W), 0..255, padded with the mean to a multiple of
                ``size_divisibility``.

        Returns:
            Mask logits (B, Q, H/4, W/4) and class embeddings (B, Q, D).
        """
        features = self.backbone((images - self.mean) / self.std)
        proposals = self.head(features)
        return proposals.mask_logits, proposals.embeddings


class RegionGraph(nn.Module):
    """Crops, and masks with mask prompts, to CLIP features."""

    mean: Tensor
    std: Tensor

    def __init__(self, adapter: ClipAdapter, prompted: bool) -> None:
        """Share CLIP's image tower; ``prompted``: it takes masks."""
        super().__init__()
        self.visual = adapter.clip_model.visual
        self.prompted = prompted
        self._encode = adapter.encoder.image_features
        self.register_buffer("mean", adapter.pixel_mean.clone(), persistent=False)
        self.register_buffer("std", adapter.pixel_std.clone(), persistent=False)

    def forward(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        """
        Args:
            crops: float32 (N, 3, S, S), RGB, 0..255, background filled.
            masks: float32 (N, 1, S, S), above 0 on the region.

        Returns:
            (N, D), not normalised.
        """
        return self._encode((crops - self.mean) / self.std, masks)


class SharedGraph(nn.Module):
    """The whole image, and which patches each proposal covers, to CLIP features."""

    mean: Tensor
    std: Tensor

    def __init__(self, shared_pass: SharedPass) -> None:
        """Share CLIP's image tower and what was trained for the pass."""
        super().__init__()
        adapter = shared_pass.clip_adapter
        self.visual: Any = adapter.clip_model.visual
        self.tokens = shared_pass.tokens
        self.first_block = shared_pass.first_block
        self.readout = shared_pass.readout
        self.register_buffer("mean", adapter.pixel_mean.clone(), persistent=False)
        self.register_buffer("std", adapter.pixel_std.clone(), persistent=False)

    def forward(self, images: Tensor, covered: Tensor) -> Tensor:
        """
        Args:
            images: float32 (1, 3, rows * patch, columns * patch), RGB, 0..255.
            covered: float32 (1, Q, rows, columns), above 0 where a mask has a pixel.

        Returns:
            (1, Q, D), not normalised.
        """
        return region_features(
            self.visual,
            (images - self.mean) / self.std,
            covered.flatten(2) > 0,
            first_block=self.first_block,
            tokens=self.tokens,
            readout=self.readout,
        )


class TextGraph(nn.Module):
    """Token ids to features, of a text tower that is causal and read at the end token."""

    rows: Tensor | None

    def __init__(self, clip: Any) -> None:
        """Share the text tower of ``clip``."""
        super().__init__()
        embedding = clip.token_embedding
        compact = isinstance(embedding, CompactTokenEmbedding)
        # a table in place of the search in it, which ONNX has no operator for
        table = embedding.rows(torch.arange(TOKENS)).to(torch.int32) if compact else None
        self.register_buffer("rows", table, persistent=False)
        self.weight = embedding.weight
        self.positions = clip.positional_embedding
        self.transformer = clip.transformer
        self.norm = clip.ln_final
        self.projection = clip.text_projection

    def forward(self, tokens: Tensor) -> Tensor:
        """
        Args:
            tokens: int64 (N, L), from start to end token, then zeros; L at most the context.

        Returns:
            (N, D), not normalised.
        """
        place = torch.arange(tokens.shape[1], device=tokens.device)
        later = place[None, :] > place[:, None]
        mask = torch.zeros(later.shape, device=tokens.device).masked_fill(later, -torch.inf)
        # the end token has the largest id; as floats, which every runtime's ArgMax takes
        ends = tokens.float().argmax(dim=1)
        places = tokens if self.rows is None else self.rows[tokens].long()
        x = self.weight[places] + self.positions[place]
        x = self.transformer(x, attn_mask=mask)
        last = x.gather(1, ends[:, None, None].expand(-1, 1, x.shape[-1]))[:, 0]
        return self.norm(last) @ self.projection


@dataclass(frozen=True)
class Graph:
    """A module with what is needed to trace it.

    Attributes:
        module: in evaluation mode.
        examples: an example of each input by its name.
        dimensions: which dimensions of each input may have another length.
        outputs: names.
    """

    module: nn.Module
    examples: Mapping[str, Tensor]
    dimensions: Mapping[str, Mapping[int, Any]]
    outputs: tuple[str, ...]

    @torch.no_grad()
    def program(self) -> ExportedProgram:
        """Trace the module."""
        return torch.export.export(
            self.module.eval(), tuple(self.examples.values()),
            dynamic_shapes=tuple(dict(each) for each in self.dimensions.values()),
        )  # fmt: skip


def proposal_graph(model: OVSeg) -> Graph:
    """The graph of the proposals; any batch, height and width."""
    step = max(model.size_divisibility, 1)
    images = torch.zeros(_BATCH, 3, _ROWS * step, _COLUMNS * step)
    sides = [step * Dim(name, min=1, max=_MOST // step) for name in ("rows", "columns")]
    dimensions = {0: Dim("batch", min=1, max=_MOST), 2: sides[0], 3: sides[1]}
    outputs = ("mask_logits", "embeddings")
    return Graph(ProposalGraph(model), {"images": images}, {"images": dimensions}, outputs)


def region_graph(model: OVSeg) -> Graph:
    """The graph of the crops; any number of them."""
    adapter = model.clip_adapter
    examples = {"crops": torch.zeros(_BATCH, 3, *adapter.input_size)}
    prompted = takes_masks(model)
    if prompted:
        examples["masks"] = torch.zeros(_BATCH, 1, *adapter.input_size)
    batch = {0: Dim("regions", min=1, max=_MOST)}
    return Graph(
        RegionGraph(adapter, prompted), examples, dict.fromkeys(examples, batch), ("features",)
    )


def shared_graph(shared_pass: SharedPass) -> Graph:
    """The graph of a shared pass; any number of proposals, any number of patches."""
    patch = shared_pass.patch
    sides = [Dim(name, min=2, max=_MOST // patch) for name in ("rows", "columns")]
    examples = {
        "images": torch.zeros(1, 3, _ROWS * patch, _COLUMNS * patch),
        "covered": torch.ones(1, _BATCH, _ROWS, _COLUMNS),
    }
    dimensions = {
        "images": {2: patch * sides[0], 3: patch * sides[1]},
        "covered": {1: Dim("regions", min=1, max=_MOST), 2: sides[0], 3: sides[1]},
    }
    return Graph(SharedGraph(shared_pass), examples, dimensions, ("features",))


def text_graph(model: OVSeg) -> Graph | None:
    """The graph of the texts; any number of any length. None of a CLIP with another text tower."""
    clip: Any = model.clip_adapter.clip_model
    if not isinstance(model.clip_adapter.encoder, CausalTextEncoder):
        return None
    tokens = torch.ones(_BATCH, 8, dtype=torch.int64)
    dimensions = {
        0: Dim("texts", min=1, max=_MOST), 1: Dim("length", min=2, max=clip.context_length)
    }  # fmt: skip
    return Graph(TextGraph(clip), {"tokens": tokens}, {"tokens": dimensions}, ("features",))


def takes_masks(model: OVSeg) -> bool:
    """Whether CLIP gets the crops' masks, for mask prompts."""
    adapter = model.clip_adapter
    return adapter.mask_prompts and adapter.encoder.mask_prompt_depth > 0
