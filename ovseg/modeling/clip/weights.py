"""CLIP's weights: from a file of any of the usual forms, or fetched by open_clip."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from open_clip.convert import convert_state_dict
from open_clip.model import CustomTextCLIP, convert_to_custom_text_state_dict
from torch import Tensor

from ovseg.errors import UserError
from ovseg.utils.checkpoint_files import Checkpoint, read_checkpoint, without_prefix
from ovseg.utils.clip_names import ACTIVATION_ENDINGS

from .hugging_face import ANCHOR, config_beside, from_hugging_face, is_hugging_face

logger = logging.getLogger(__name__)

# where CLIP's weights stand in an OVSeg checkpoint
OVSEG_PREFIX = "clip_adapter.clip_model."
PROMPTS = "visual.mask_embedding"
# entries of OpenAI's archives that are no weights
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
# entries that every CLIP of OpenAI's kind has
_OF_CLIP = ("visual.conv1.weight", "token_embedding.weight", "text_projection")
# what tells where a CLIP's weights begin: of OpenAI's kind, Hugging Face's, any other
_ANCHORS = (_OF_CLIP[0], ANCHOR, "logit_scale")
# of a CoCa, whose decoder OVSeg does not need; positions of a text tower, 0, 1, 2 ...
_UNUSED = ("text_decoder.", "text.transformer.embeddings.position_ids")


def open_clip_name(name: str) -> str:
    """open_clip's form of a name: "ViT-B-16" of OpenAI's "ViT-B/16"; an ending that tells the
    activation is left out where open_clip has no model of that name.
    """
    name = name.replace("/", "-")
    for ending in ACTIVATION_ENDINGS:
        if name.endswith(ending) and open_clip.get_model_config(name) is None:
            return name.removesuffix(ending)
    return name


def read_clip_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read CLIP weights from a file.

    Args:
        path: OpenAI's TorchScript archive, safetensors, or what ``torch.save`` wrote: a state
            dict, a training checkpoint of open_clip or Lightning, Hugging Face's ``CLIPModel``, or
            an OVSeg checkpoint, of which CLIP's part is taken.

    Returns:
        The state dict in float32 under open_clip's names, without mask prompts that nobody
        trained, and the ``model_cfg`` that the file carries or that lies beside it, if any.

    Raises:
        UserError: for a file that is missing or holds no CLIP weights.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path, "CLIP weights")
    weights = without_prefix(checkpoint.weights, _ANCHORS)
    model_cfg = _model_cfg(path, checkpoint, weights)
    if is_hugging_face(weights):
        try:
            weights = from_hugging_face(weights)
        except UserError as error:
            raise UserError(f"CLIP weights {str(path)!r}: {error}") from error
    weights = {
        key: value.float() if value.is_floating_point() else value
        for key, value in weights.items()
        if key not in _NO_WEIGHTS and not key.startswith(_UNUSED)
    }
    drop_untrained_prompts(weights)
    lacking = [key for key in _OF_CLIP if key not in weights]
    if lacking and (is_openai_layout(weights) or "logit_scale" not in weights):
        raise UserError(
            f"{str(path)!r} holds no CLIP with a vision transformer ({lacking[0]} is missing); "
            "wanted is an OpenAI archive, a state dict, an open_clip training checkpoint, a "
            "CLIPModel of Hugging Face or an OVSeg checkpoint"
        )
    return weights, model_cfg


def is_openai_layout(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights are of OpenAI's two towers, or part of such ones.

    Other towers have other names ("visual.trunk", "text."), or parts that OpenAI's lack.
    """
    others = ("visual.trunk.", "visual.attn_pool.", "text.", "image_encoder.", "text_encoder.")
    return "visual.conv1.weight" in weights and not any(key.startswith(others) for key in weights)


def read_model_cfg(path: str | Path) -> dict[str, Any] | None:
    """The ``model_cfg`` that a file of CLIP weights carries or that lies beside it, if any; the
    weights themselves stay unread where the file's form allows that.

    Raises:
        UserError: the file cannot be read.
    """
    checkpoint = read_checkpoint(path, "CLIP weights", mmap=True)
    weights = without_prefix(checkpoint.weights, _ANCHORS)
    return _model_cfg(Path(path), checkpoint, weights)


def _model_cfg(
    path: Path, checkpoint: Checkpoint, weights: Mapping[str, Tensor]
) -> dict[str, Any] | None:
    found, where = checkpoint.entries.get("model_cfg"), "model_cfg"
    try:
        if isinstance(found, str):  # safetensors hold texts besides tensors
            found = json.loads(found)
        if found is None and is_hugging_face(weights):
            return config_beside(path)
        beside = path.with_name("open_clip_config.json")
        if found is None and path.name.startswith("open_clip_") and beside.is_file():
            where = f"the model_cfg of {beside.name} beside it"
            content = json.loads(beside.read_text(encoding="utf-8"))
            found = content.get("model_cfg")
            if found and content.get("preprocess_cfg"):
                found = {**found, "preprocess_cfg": content["preprocess_cfg"]}
    except (ValueError, AttributeError):
        found = {}
    if found is not None and not _is_model_config(found):
        raise UserError(
            f"CLIP weights {str(path)!r}: {where} is none of open_clip's, with embed_dim, "
            "vision_cfg (with layers) and text_cfg; mend it, or leave it out"
        )
    return found


def drop_untrained_prompts(weights: dict[str, Tensor]) -> None:
    """Take mask prompts out of a CLIP's weights where they are all zero, as new ones are."""
    if PROMPTS in weights and not weights[PROMPTS].any():
        del weights[PROMPTS]


def _is_model_config(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and isinstance(content.get("embed_dim"), int)
        and isinstance(content.get("vision_cfg"), Mapping)
        and (
            isinstance(content["vision_cfg"].get("layers"), int)
            or isinstance(content["vision_cfg"].get("timm_model_name"), str)
        )
        and isinstance(content.get("text_cfg"), Mapping)
    )


def load_clip_weights(model: open_clip.CLIP, weights: dict[str, Tensor], source: str) -> None:
    """Put ``weights`` into ``model``; mask prompts may be missing or not wanted.

    Raises:
        UserError: when a weight is missing, left over or of another shape, naming the first.
    """
    wanted = model.state_dict()
    weights = _in_layout_of(model, weights)
    if PROMPTS in weights and PROMPTS not in wanted:
        logger.info("%s carries mask prompts, which MASK_PROMPT_DEPTH 0 leaves out", source)
        del weights[PROMPTS]
    if PROMPTS in wanted and PROMPTS not in weights:
        logger.info("%s carries no mask prompts: they are zero until they are trained", source)
        weights[PROMPTS] = wanted[PROMPTS]
    if PROMPTS in weights and weights[PROMPTS].shape != wanted[PROMPTS].shape:
        depth = len(weights[PROMPTS])
        raise UserError(
            f"{source} has mask prompts of depth {depth}, the config asks for "
            f"{len(wanted[PROMPTS])}: set MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH {depth}"
        )
    for key in [*wanted, *weights]:
        problem = (
            "is missing"
            if key not in weights
            else "is left over"
            if key not in wanted
            else f"is {tuple(weights[key].shape)}, wanted {tuple(wanted[key].shape)}"
            if weights[key].shape != wanted[key].shape
            else ""
        )
        if problem:
            raise UserError(
                f"{source} does not fit the CLIP of MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME: {key} "
                f"{problem}"
            )
    model.load_state_dict(weights)


def _in_layout_of(model: open_clip.CLIP, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy of weights of other forms of the same CLIP under the model's names."""
    weights = dict(convert_state_dict(model, dict(weights)))
    if isinstance(model, CustomTextCLIP) and "positional_embedding" in weights:
        weights = dict(convert_to_custom_text_state_dict(weights))
    for name in ("logit_scale", "logit_bias"):  # a number, or one in a list
        of_model = getattr(model, name, None)
        if name in weights and of_model is not None and weights[name].numel() == 1:
            weights[name] = weights[name].reshape(of_model.shape)
    return weights


def find_pretrained(name: str, pretrained: str) -> Path:
    """The file of CLIP's pretrained weights, fetched into open_clip's cache when it is not there.

    Args:
        name: of the model, OpenAI's or open_clip's form.
        pretrained: open_clip's tag, or the path of a file.

    Raises:
        UserError: for an unknown tag, and when the file cannot be had: what to download and where
            to put it.
    """
    if Path(pretrained).is_file():
        return Path(pretrained)
    name = open_clip_name(name)
    config = open_clip.get_pretrained_cfg(name, pretrained)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise UserError(
            f"MODEL.CLIP_ADAPTER.CLIP_PRETRAINED {pretrained!r} is neither a file nor a tag of "
            f"{name}; tags: {', '.join(tags) or 'none'}"
        )
    try:
        return Path(open_clip.download_pretrained(config))
    except Exception as error:
        source = config.get("url") or config.get("hf_hub")
        raise UserError(
            f"the {pretrained!r} weights of {name} could not be fetched ({type(error).__name__}): "
            f"download {source} and pass its path as MODEL.CLIP_ADAPTER.CLIP_PRETRAINED, or give a "
            "MODEL.WEIGHTS that carries CLIP's weights"
        ) from error
