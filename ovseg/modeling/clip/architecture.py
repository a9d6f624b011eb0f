"""Which CLIP a name or a set of weights means, and an untrained one of that kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import LayerNorm, QuickGELU
from torch import Tensor, nn

from ovseg.errors import UserError

from .activation import file_uses_quick_gelu, uses_quick_gelu
from .compact_embedding import CompactTokenEmbedding
from .visual import MaskPromptedViT
from .weights import open_clip_name

TOKENS = 49408  # size of CLIP's ordinary vocabulary

open_clip.add_model_config(Path(__file__).parent / "model_configs")


def architecture_of_name(name: str, pretrained: str = "") -> dict[str, Any]:
    """open_clip's model config of a name.

    Args:
        name: OpenAI's form ("ViT-B/16") or open_clip's ("ViT-B-16").
        pretrained: tag or file of the weights that will be loaded; with the name it tells the
            activation (see :mod:`.activation`).

    Raises:
        UserError: for an unknown name, with those that are alike, and for a CLIP of another kind
            than a vision transformer with CLIP's causal text transformer.
    """
    known = open_clip.get_model_config(open_clip_name(name))
    if known is None:
        alike = [m for m in open_clip.list_models() if m.startswith(name[:5])][:8]
        raise UserError(
            f"MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME {name!r} is neither a file nor a model of "
            f"open_clip; for example: {', '.join(alike or ['ViT-B/16', 'ViT-L/14'])}"
        )
    architecture: dict[str, Any] = dict(known)
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    plain = (
        not {"custom_text", "multimodal_cfg"} & architecture.keys()
        and not {"timm_model_name", "attentional_pool", "attn_pooler_heads"} & vision.keys()
        and not {"hf_model_name", "no_causal_mask", "pool_type", "embed_cls"} & text.keys()
        and isinstance(vision.get("layers"), int)
    )
    if not plain:
        raise UserError(
            f"MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME {name!r} is not a CLIP of OpenAI's kind (vision "
            "transformer with class token, causal text transformer); take such a one, for example "
            "ViT-B/16, ViT-L/14, ViT-H-14"
        )
    return {**architecture, "quick_gelu": uses_quick_gelu(name, pretrained, known)}


def architecture_of_file(
    path: str | Path, weights: dict[str, Tensor], model_cfg: dict[str, Any] | None
) -> dict[str, Any]:
    """open_clip's model config of a CLIP that is given as a file, for its number of tokens.

    Args:
        path: of the file, OpenAI's archive or another.
        weights, model_cfg: what :func:`read_clip_file` found in it.

    Raises:
        UserError: see :func:`architecture_of_weights`.
    """
    quick_gelu = file_uses_quick_gelu(path, model_cfg)
    if model_cfg is None:
        model_cfg = {**architecture_of_weights(weights), "quick_gelu": quick_gelu}
    # a file may hold fewer tokens than its model_cfg, which then describes the training
    rows = len(weights["token_embedding.weight"])
    return {**model_cfg, "text_cfg": {**model_cfg["text_cfg"], "vocab_size": rows}}


def architecture_of_weights(weights: dict[str, Tensor]) -> dict[str, Any]:
    """open_clip's model config of a CLIP state dict.

    Weights do not tell the number of heads nor the activation: heads are 64 wide and the activation
    is QuickGELU, as in OpenAI's models. Files that say more carry a ``model_cfg``.

    Raises:
        UserError: when these are not the weights of a CLIP with a vision transformer.
    """
    try:
        patch_width, _, patch_size, _ = weights["visual.conv1.weight"].shape
        places = weights["visual.positional_embedding"].shape[0] - 1
        text_width = weights["ln_final.weight"].shape[0]
        return {
            "embed_dim": weights["text_projection"].shape[1],
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": patch_size * round(places**0.5),
                "layers": _blocks(weights, "visual.transformer.resblocks."),
                "width": patch_width,
                "patch_size": patch_size,
                "head_width": min(64, patch_width),
            },
            "text_cfg": {
                "context_length": weights["positional_embedding"].shape[0],
                "vocab_size": weights["token_embedding.weight"].shape[0],
                "width": text_width,
                "heads": max(1, text_width // 64),
                "layers": _blocks(weights, "transformer.resblocks."),
            },
        }
    except (KeyError, ValueError) as error:
        raise UserError(
            f"these are not the weights of a CLIP with a vision transformer: {error} is missing"
        ) from None


def build_untrained_clip(architecture: dict[str, Any], mask_prompt_depth: int) -> open_clip.CLIP:
    """An open_clip ``CLIP`` with random weights whose ``visual`` is a :class:`MaskPromptedViT`.

    A vocabulary smaller than CLIP's own makes ``token_embedding`` a
    :class:`CompactTokenEmbedding`.
    """
    vision = CLIPVisionCfg(**architecture["vision_cfg"])
    text = CLIPTextCfg(**architecture["text_cfg"])
    quick_gelu = architecture.get("quick_gelu", False)
    # open_clip's own vision tower is replaced at once, so it is made without blocks
    placeholder = {**architecture["vision_cfg"], "layers": 0}
    model = open_clip.CLIP(architecture["embed_dim"], placeholder, text, quick_gelu)
    model.visual = MaskPromptedViT(
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
        act_layer=QuickGELU if quick_gelu else nn.GELU,
        norm_layer=LayerNorm,
        mask_prompt_depth=mask_prompt_depth,
    )
    if text.vocab_size < TOKENS:
        model.token_embedding = CompactTokenEmbedding(text.vocab_size, text.width)
    return model


def _blocks(weights: dict[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})
