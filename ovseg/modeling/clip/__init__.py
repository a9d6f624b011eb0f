"""CLIP over open_clip: architecture, weights, mask-prompted ViT, text, classifier."""

from __future__ import annotations

import open_clip

from ovseg.utils.clip_names import is_clip_file

from .adapter import ClipAdapter
from .architecture import architecture_of_file, architecture_of_name
from .construction import build_untrained_clip
from .encoder import ClipEncoder, encode_texts, encoder_of, template_features, word_features
from .foreground import foreground_features
from .learned_prompts import check_promptable, prompted_features, read_prompts
from .pixels import pixels_of
from .region_tokens import RegionTokens
from .shared_pass import SharedPass, region_features
from .template_choice import TemplateChoice
from .template_map import TemplateMap
from .text import encode_tokens, text_templates
from .text_store import TextStore
from .visual import MaskPromptedViT
from .weights import (
    OVSEG_PREFIX,
    find_pretrained,
    load_clip_weights,
    read_clip_file,
)

__all__ = [
    "OVSEG_PREFIX",
    "ClipAdapter",
    "ClipEncoder",
    "MaskPromptedViT",
    "RegionTokens",
    "SharedPass",
    "TemplateChoice",
    "TemplateMap",
    "TextStore",
    "architecture_of_file",
    "architecture_of_name",
    "build_clip",
    "build_untrained_clip",
    "check_promptable",
    "encode_texts",
    "encode_tokens",
    "encoder_of",
    "find_pretrained",
    "foreground_features",
    "load_clip_weights",
    "pixels_of",
    "prompted_features",
    "read_clip_file",
    "read_prompts",
    "region_features",
    "template_features",
    "text_templates",
    "word_features",
]


def build_clip(name: str, pretrained: str, mask_prompt_depth: int) -> open_clip.CLIP:
    """The CLIP that a config names; nothing is fetched.

    Args:
        name: a name, which gives an untrained CLIP whose weights come later, or the path of a
            file, which gives the CLIP in it.
        pretrained: tag or file of the weights that a name's CLIP will get; tells the activation.
        mask_prompt_depth: layers with mask prompts.
    """
    if not is_clip_file(name):
        return build_untrained_clip(architecture_of_name(name, pretrained), mask_prompt_depth)
    weights, model_cfg = read_clip_file(name)
    architecture = architecture_of_file(name, weights, model_cfg)
    model = build_untrained_clip(architecture, mask_prompt_depth)
    load_clip_weights(model, weights, name)
    return model
