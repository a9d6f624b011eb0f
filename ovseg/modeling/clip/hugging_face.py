"""Hugging Face's layout of CLIP (``CLIPModel`` of transformers), read as open_clip's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg.errors import UserError

#: a name that every such file has
ANCHOR = "vision_model.embeddings.patch_embedding.weight"

_NAMES = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    ANCHOR: "visual.conv1.weight",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",  # spelt so
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}
# linear layers without bias there, matrices of the transposed shape in open_clip
_PROJECTIONS = {
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}
_LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_QUERY = "self_attn.q_proj"
# the defaults of transformers' CLIPConfig, whose files may hold only what differs
_TEXT = {
    "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "vocab_size": 49408,
    "hidden_act": "quick_gelu",
}  # fmt: skip
_VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu",
}  # fmt: skip


def is_hugging_face(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have the names of ``CLIPModel``."""
    return ANCHOR in weights


def from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under open_clip's names; query, key and value of a layer are joined.

    Raises:
        UserError: a name is none of ``CLIPModel``'s.
    """
    converted = {}
    for name, value in weights.items():
        layer = _LAYER.fullmatch(name)
        if name.endswith("embeddings.position_ids"):  # 0, 1, 2 ...
            continue
        if name in _NAMES:
            converted[_NAMES[name]] = value
        elif name in _PROJECTIONS:
            converted[_PROJECTIONS[name]] = value.T.contiguous()
        elif layer is None:
            raise UserError(
                f"it has Hugging Face's names, but {name} is none of its CLIPModel's; give the "
                "weights of a CLIPModel, or a file of open_clip"
            )
        else:
            tower, number, part, kind = layer.groups()
            place = f"{'visual.' * (tower == 'vision')}transformer.resblocks.{number}."
            if part in _PARTS:
                converted[f"{place}{_PARTS[part]}.{kind}"] = value
            elif part == _QUERY:
                others = [name.replace(_QUERY, f"self_attn.{x}_proj") for x in "kv"]
                if not all(other in weights for other in others):
                    raise UserError(f"{' or '.join(others)} is missing; get the file again")
                joined = torch.cat([value, *(weights[other] for other in others)])
                converted[f"{place}attn.in_proj_{kind}"] = joined
    return converted


def config_beside(path: Path) -> dict[str, Any] | None:
    """open_clip's model config by the ``config.json`` that lies beside a Hugging Face file.

    Raises:
        UserError: the file is none of a ``CLIPModel``, or its two towers differ in activation.
    """
    file = path.with_name("config.json")
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        # files of transformers before 5 may say it twice, the second time with precedence
        text, vision = (
            {**usual, **(content.get(key) or {}), **(content.get(f"{key}_dict") or {})}
            for key, usual in (("text_config", _TEXT), ("vision_config", _VISION))
        )
        activations = {text["hidden_act"], vision["hidden_act"]}
        if len(activations) > 1 or not activations <= {"quick_gelu", "gelu"}:
            raise UserError(
                f"{str(file)!r}: hidden_act {' and '.join(sorted(activations))}; only quick_gelu "
                "or gelu, the same for both towers, can be used"
            )
        return {
            "embed_dim": content.get("projection_dim", 512),
            "quick_gelu": activations == {"quick_gelu"},
            "vision_cfg": {
                "image_size": vision["image_size"],
                "layers": vision["num_hidden_layers"],
                "width": vision["hidden_size"],
                "head_width": vision["hidden_size"] // vision["num_attention_heads"],
                "patch_size": vision["patch_size"],
                "mlp_ratio": vision["intermediate_size"] / vision["hidden_size"],
            },
            "text_cfg": {
                "context_length": text["max_position_embeddings"],
                "vocab_size": text["vocab_size"],
                "width": text["hidden_size"],
                "heads": text["num_attention_heads"],
                "layers": text["num_hidden_layers"],
                "mlp_ratio": text["intermediate_size"] / text["hidden_size"],
            },
        }
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f"{str(file)!r} is no config of a CLIPModel ({type(error).__name__}); mend it, or take "
            "the weights to a folder of their own"
        ) from error
