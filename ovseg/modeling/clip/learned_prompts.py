"""Learned text prompts: vectors before a word in place of a template's words.

SimBaseline ("A Simple Baseline for Open-Vocabulary Semantic Segmentation with Pre-trained
Vision-language Model", ECCV 2022) learns them on the regions of the seen classes, CLIP itself
frozen, as CoOp (IJCV 2022) does for images. ``train.py --train text-prompts`` makes them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ovseg.errors import UserError
from ovseg.utils.checkpoint_files import load_entries

from .encoder import CausalTextEncoder, encoder_of
from .text import BATCH, encode_embedded

#: the entry of a file that holds the vectors
ENTRY = "text_prompts"
_KEY = "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT"


def prompted_features(model: open_clip.CLIP, prompts: Tensor, words: Sequence[str]) -> Tensor:
    """Features of words behind learned vectors, with a gradient to these.

    Args:
        model: a CLIP whose text tower is OpenAI's.
        prompts: float (N, width of the text tower), of the N places before a word.
        words: at least one; what the context has no place for is cut off.

    Returns:
        float (len(words), D), of unit length.
    """

    def encode(part: Tensor, ends: Tensor, prompts: Tensor) -> Tensor:
        embedded = model.token_embedding(part)
        before, after = embedded[:, :1], embedded[:, 1 + len(prompts) :]
        own = prompts.to(embedded).expand(len(part), -1, -1)
        return encode_embedded(model, torch.cat([before, own, after], dim=1), ends)

    # a token for each place, which its vector replaces
    texts = [f"{'x ' * len(prompts)}{word}." for word in words]
    tokens = open_clip.tokenize(texts, context_length=model.context_length)
    features = []
    for part in tokens.to(prompts.device).split(BATCH):
        ends = part.argmax(dim=1)
        part = part[:, : int(ends.max()) + 1]
        # computed again for the gradient: what every word leaves for it is 8 MB with ViT-B/16
        again = len(tokens) > BATCH and torch.is_grad_enabled()
        features.append(
            checkpoint(encode, part, ends, prompts, use_reentrant=False)
            if again
            else encode(part, ends, prompts)
        )
    return F.normalize(torch.cat(features), dim=-1)


def check_promptable(model: nn.Module, source: str) -> None:
    """Refuse a CLIP whose text tower takes no learned prompts.

    Raises:
        UserError: names ``source``, the option or key that asks for them.
    """
    if not isinstance(encoder_of(model), CausalTextEncoder):
        raise UserError(
            f"{source}: learned text prompts are for CLIPs with OpenAI's text tower; take such a "
            "CLIP, or leave them out"
        )


def read_prompts(path: str | os.PathLike[str], model: nn.Module) -> Tensor:
    """The learned vectors in a file of ``train.py --train text-prompts``, float32.

    Raises:
        UserError: there is no such file, or it does not fit this CLIP.
    """
    if not path or not Path(path).is_file():
        raise UserError(
            f"{_KEY} {str(path)!r}: no such file; MODEL.CLIP_ADAPTER.TEXT_TEMPLATES learned needs "
            "the one that open_clip_training/train.py --train text-prompts wrote"
        )
    check_promptable(model, "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES learned")
    prompts = load_entries(Path(path), _KEY).get(ENTRY)
    if not isinstance(prompts, Tensor) or prompts.ndim != 2 or not prompts.isfinite().all():
        raise UserError(f"{_KEY} {str(path)!r} holds no learned text prompts; give another file")
    count, width = prompts.shape
    clip: Any = model
    if width != clip.positional_embedding.shape[1] or count > clip.context_length - 3:
        raise UserError(
            f"{_KEY} {str(path)!r} holds {count} prompts of width {width}, which do not fit this "
            "CLIP's text tower; give those that were learned with it"
        )
    return prompts.float()
