"""Which CLIP a name or a set of weights means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor

from ovseg.errors import UserError
from ovseg.utils.clip_names import unknown_clip

from .activation import file_uses_quick_gelu, uses_quick_gelu
from .construction import is_openai_like
from .pixels import pixels_of_name, with_pixels
from .weights import is_openai_layout, open_clip_name

open_clip.add_model_config(Path(__file__).parent / "model_configs")


def architecture_of_name(name: str, pretrained: str = "") -> dict[str, Any]:
    """open_clip's model config of a name.

    Args:
        name: OpenAI's form ("ViT-B/16") or open_clip's ("ViT-B-16").
        pretrained: tag or file of the weights that will be loaded; with the name it tells the
            activation (see :mod:`.activation`), and mean and standard deviation of the pixels (see
            :mod:`.pixels`), which stand under ``preprocess_cfg`` where they are not OpenAI's.

    Raises:
        UserError: for an unknown name, with those that are alike, and for a ResNet.
    """
    known = open_clip.get_model_config(open_clip_name(name))
    if known is None:
        key = "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME"
        raise unknown_clip(key, name, open_clip.list_models())
    vision = known["vision_cfg"]
    if "timm_model_name" not in vision and not isinstance(vision.get("layers"), int):
        raise UserError(
            f"MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME {name!r} has a ResNet for its image tower; take a "
            "CLIP with a vision transformer, for example ViT-B/16, ViT-L/14, ViT-H-14"
        )
    architecture = {**known, "quick_gelu": uses_quick_gelu(name, pretrained, known)}
    return with_pixels(architecture, pixels_of_name(name, pretrained))


def architecture_of_file(
    path: str | Path, weights: dict[str, Tensor], model_cfg: dict[str, Any] | None
) -> dict[str, Any]:
    """open_clip's model config of a CLIP that is given as a file, for its number of tokens.

    Args:
        path: of the file, OpenAI's archive or another.
        weights, model_cfg: what :func:`read_clip_file` found in it.

    Raises:
        UserError: nothing says what it is; see also :func:`architecture_of_weights`.
    """
    if model_cfg is None and not is_openai_layout(weights):
        raise UserError(
            f"CLIP weights {str(path)!r} do not say their architecture, which is not OpenAI's: "
            "give open_clip's name of it as MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME, and the file as "
            "MODEL.CLIP_ADAPTER.CLIP_PRETRAINED"
        )
    quick_gelu = file_uses_quick_gelu(path, model_cfg)
    if model_cfg is not None and not is_openai_like(model_cfg):
        return dict(model_cfg)
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


def _blocks(weights: dict[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})
