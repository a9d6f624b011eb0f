"""What is trained for a shared pass, beside CLIP's own weights; see :mod:`.shared_pass`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovseg.errors import UserError
from ovseg.utils.checkpoint_files import load_entries

from .visual import MaskPromptedViT

# of the learned bias, as published
_BIAS_START = -5.0


class RegionTokens(nn.Module):
    """What the copies of the class token have of their own, in the last blocks of a CLIP.

    Attributes:
        queries, query_bias: (B, D, D) and (B, D), the query projection in each of B blocks; None:
            CLIP's own.
        inside: (B, heads); ``exp(inside)`` is added to the logits of the patches under a mask;
            None: those outside are left out, and nothing is added.
    """

    def __init__(self, visual: MaskPromptedViT, first_block: int, kind: str) -> None:
        """Start from a CLIP's own weights.

        Args:
            visual: its image tower.
            first_block: 0 for all blocks.
            kind: "mask-queries" or "mask-bias".
        """
        super().__init__()
        blocks: Any = visual.transformer.resblocks[first_block:]
        width = visual.positional_embedding.shape[1]
        self.queries: Tensor | None
        self.query_bias: Tensor | None
        self.inside: Tensor | None
        if kind == "mask-queries":
            weights = [block.attn.in_proj_weight[:width] for block in blocks]
            biases = [block.attn.in_proj_bias[:width] for block in blocks]
            self.queries = nn.Parameter(torch.stack(weights).detach().clone())
            self.query_bias = nn.Parameter(torch.stack(biases).detach().clone())
            self.register_parameter("inside", None)
        else:
            heads = blocks[0].attn.num_heads
            self.inside = nn.Parameter(torch.full((len(blocks), heads), _BIAS_START))
            self.register_parameter("queries", None)
            self.register_parameter("query_bias", None)


def read_region_tokens(path: str, visual: MaskPromptedViT, first_block: int) -> RegionTokens:
    """The trained :class:`RegionTokens` of a file, without gradients.

    Raises:
        UserError: the file is not there, or is for another CLIP or other blocks.
    """
    key = "MODEL.CLIP_ADAPTER.SHARED_WEIGHTS"
    if not Path(path).is_file():
        raise UserError(f"{key} {path!r} is not there; open_clip_training/train.py makes it")
    state = load_entries(Path(path), key)
    kind = "mask-queries" if "queries" in state else "mask-bias"
    tokens = RegionTokens(visual, first_block, kind)
    try:
        tokens.load_state_dict({name: value.float() for name, value in state.items()})
    except (RuntimeError, AttributeError) as error:
        raise UserError(
            f"{key} {path!r} does not fit this CLIP from block {first_block} on; give the "
            "MODEL.CLIP_ADAPTER.SHARED_FIRST_BLOCK that it was trained with"
        ) from error
    return tokens.requires_grad_(False).eval()
