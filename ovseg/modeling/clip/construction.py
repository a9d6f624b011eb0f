"""Untrained CLIPs of open_clip's classes, by their model config."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import open_clip
import open_clip.hf_model
import open_clip.timm_model
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.transformer import LayerNorm, QuickGELU
from torch import nn

from ovseg.errors import UserError

from .compact_embedding import CompactTokenEmbedding
from .pixels import set_pixels
from .tokenizer import Tokenizer, require_transformers
from .visual import MaskPromptedViT

TOKENS = 49408  # size of CLIP's ordinary vocabulary

# what the towers of OpenAI's kind may differ in
_VISION = {
    "image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio", "ls_init_value",
    "patch_dropout", "no_ln_pre", "output_tokens",
}  # fmt: skip
_TEXT = {
    "context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "ls_init_value",
}  # fmt: skip
# what open_clip's classes take besides the two towers
_MODEL = ("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale")


def takes_mask_prompts(architecture: Mapping[str, Any]) -> bool:
    """Whether the image tower is open_clip's vision transformer, read at its class token."""
    given = {key for key, value in architecture["vision_cfg"].items() if _is_set(value)}
    return given - {"pool_type"} <= _VISION and architecture["vision_cfg"].get(
        "pool_type", "tok"
    ) == "tok"  # fmt: skip


def is_openai_like(architecture: Mapping[str, Any]) -> bool:
    """Whether both towers are of OpenAI's kind: class token, causal text transformer."""
    given = {key for key, value in architecture["text_cfg"].items() if _is_set(value)}
    return (
        takes_mask_prompts(architecture)
        and given <= _TEXT
        and not architecture.get("custom_text")
        and "multimodal_cfg" not in architecture
    )


def build_untrained_clip(architecture: Mapping[str, Any], mask_prompt_depth: int) -> open_clip.CLIP:
    """A CLIP with random weights, open_clip's ``CLIP`` or ``CustomTextCLIP``.

    Where the image tower takes mask prompts, ``visual`` is a :class:`MaskPromptedViT`. The model
    has its ``tokenizer`` and ``embed_dim``. Of OpenAI's kind a vocabulary smaller than CLIP's own
    makes ``token_embedding`` a :class:`CompactTokenEmbedding`. Of a CoCa there is no decoder.

    Args:
        architecture: open_clip's model config, maybe with ``preprocess_cfg``.
        mask_prompt_depth: layers with mask prompts.

    Raises:
        UserError: the image tower takes no mask prompts; a package is missing.
    """
    prompted = takes_mask_prompts(architecture)
    if mask_prompt_depth and not prompted:
        raise UserError(
            f"MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH {mask_prompt_depth}: mask prompts need "
            "open_clip's own vision transformer with a class token, and this CLIP has "
            f"{_tower(architecture)}; set MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH 0 "
            "MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD False"
        )
    vision, text = dict(architecture["vision_cfg"]), dict(architecture["text_cfg"])
    tokenizer = Tokenizer(text)
    # weights come later, of all parts
    if "timm_model_name" in vision:
        _have_timm()
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        _have_transformers(text["hf_model_name"])
        text["hf_model_pretrained"] = False
    vision["output_tokens"] = text["output_tokens"] = False
    custom = architecture.get("custom_text") or "hf_model_name" in text
    model = (CustomTextCLIP if custom else open_clip.CLIP)(
        architecture["embed_dim"],
        # open_clip's own vision tower is replaced at once, so it is made without blocks
        CLIPVisionCfg(**{**vision, "layers": 0} if prompted else vision),
        CLIPTextCfg(**text),
        architecture.get("quick_gelu", False),
        **{key: architecture[key] for key in _MODEL if key in architecture},
    )
    if prompted:
        model.visual = _mask_prompted_vit(architecture, mask_prompt_depth)
    if is_openai_like(architecture) and text.get("vocab_size", TOKENS) < TOKENS:
        model.token_embedding = CompactTokenEmbedding(text["vocab_size"], CLIPTextCfg(**text).width)
    model.embed_dim, model.tokenizer = architecture["embed_dim"], tokenizer
    set_pixels(model, architecture)
    return model


def _mask_prompted_vit(architecture: Mapping[str, Any], depth: int) -> MaskPromptedViT:
    vision = CLIPVisionCfg(**architecture["vision_cfg"])
    return MaskPromptedViT(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        width=vision.width,
        layers=vision.layers,
        heads=vision.width // vision.head_width,
        mlp_ratio=vision.mlp_ratio,
        ls_init_value=vision.ls_init_value,
        patch_dropout=vision.patch_dropout,
        no_ln_pre=vision.no_ln_pre,
        output_dim=architecture["embed_dim"],
        act_layer=QuickGELU if architecture.get("quick_gelu", False) else nn.GELU,
        norm_layer=LayerNorm,
        mask_prompt_depth=depth,
    )


def _is_set(value: Any) -> bool:
    return value is not None and value is not False


def _tower(architecture: Mapping[str, Any]) -> str:
    vision = architecture["vision_cfg"]
    if "timm_model_name" in vision:
        return f"timm's {vision['timm_model_name']}"
    if vision.get("attentional_pool"):
        return "attention pooling"
    if vision.get("pool_type", "tok") != "tok":
        return f"{vision['pool_type']} pooling"
    return "another one"


def _have_timm() -> None:
    """Give open_clip timm, which it may have been imported without."""
    if open_clip.timm_model.timm is None:
        importlib.reload(open_clip.timm_model)
    if open_clip.timm_model.timm is None:
        raise UserError(
            "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME: this CLIP needs the package timm for its image "
            "tower; install it: pip install timm"
        )


def _have_transformers(tower: str) -> None:
    """Give open_clip transformers, which it may have been imported without."""
    require_transformers(f"its text tower {tower}")
    if open_clip.hf_model.transformers is None:
        importlib.reload(open_clip.hf_model)
