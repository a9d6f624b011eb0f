"""Mean and standard deviation of a CLIP's pixels. They belong to its weights, not to its shape."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import set_model_preprocess_cfg
from torch import nn

from ovseg.errors import UserError

from .weights import open_clip_name, read_model_cfg

logger = logging.getLogger(__name__)

#: RGB, for values in 0..1: mean and standard deviation
Pixels = tuple[tuple[float, ...], tuple[float, ...]]
OPENAI: Pixels = (tuple(open_clip.OPENAI_DATASET_MEAN), tuple(open_clip.OPENAI_DATASET_STD))
#: where a model config carries them when they are not OpenAI's: {"mean": ..., "std": ...}
KEY = "preprocess_cfg"


def pixels_of_name(name: str, pretrained: str) -> Pixels:
    """Mean and standard deviation of the pixels of a name's CLIP.

    Args:
        name: OpenAI's form or open_clip's.
        pretrained: open_clip's tag, or the file, of its weights; may be empty. A file says it where
            it has a ``preprocess_cfg``; nothing else does: then what most of open_clip's tags of
            that name have.
    """
    if Path(pretrained).is_file():
        try:
            said = (read_model_cfg(pretrained) or {}).get(KEY)
        except UserError as error:  # the weights may not be needed; if they are, they are refused
            logger.debug("%s", error)
            said = None
        if said:
            return _pixels(said)
    name = open_clip_name(name)
    tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else None
    if tag:
        return _pixels(tag)
    tags = open_clip.list_pretrained_tags_by_model(name)
    found = Counter(_pixels(open_clip.get_pretrained_cfg(name, tag)) for tag in tags)
    pixels = found.most_common(1)[0][0] if found else OPENAI
    if pixels != OPENAI:
        logger.info("CLIP %s: mean %s and std %s of its pixels, as most of its weights have them",
                    name, *pixels)  # fmt: skip
    return pixels


def with_pixels(architecture: dict[str, Any], pixels: Pixels) -> dict[str, Any]:
    """A model config that carries mean and standard deviation, where they are not OpenAI's."""
    if pixels == OPENAI:
        return architecture
    mean, std = pixels
    return {**architecture, KEY: {"mean": list(mean), "std": list(std)}}


def set_pixels(model: nn.Module, architecture: Mapping[str, Any]) -> None:
    """Attach to a CLIP what its config says, where open_clip keeps it."""
    mean, std = _pixels(architecture[KEY]) if architecture.get(KEY) else OPENAI
    set_model_preprocess_cfg(model, {"mean": mean, "std": std})


def pixels_of(model: nn.Module) -> Pixels:
    """Mean and standard deviation of a CLIP's pixels; OpenAI's where nothing says it."""
    visual = model.visual
    mean, std = (getattr(visual, name, None) for name in ("image_mean", "image_std"))
    return (tuple(mean), tuple(std)) if mean and std else OPENAI


def _pixels(config: Mapping[str, Any]) -> Pixels:
    def values(name: str, usual: Sequence[float]) -> tuple[float, ...]:
        return tuple(float(value) for value in config.get(name) or usual)

    return values("mean", OPENAI[0]), values("std", OPENAI[1])
