"""CLIP's weights: from a file of any of the usual forms, or fetched by open_clip."""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from ovseg.errors import UserError

logger = logging.getLogger(__name__)

# where CLIP's weights stand in an OVSeg checkpoint
OVSEG_PREFIX = "clip_adapter.clip_model."
PROMPTS = "visual.mask_embedding"
# entries of OpenAI's archives that are no weights
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
# entries that every CLIP with a vision transformer has
_OF_CLIP = ("visual.conv1.weight", "token_embedding.weight", "text_projection")


def read_clip_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read CLIP weights from a file.

    Args:
        path: OpenAI's TorchScript archive, safetensors, or what ``torch.save`` wrote: a state
            dict, an open_clip training checkpoint (``state_dict``) or an OVSeg checkpoint
            (``model``), of which CLIP's part is taken.

    Returns:
        The state dict in float32, without mask prompts that nobody trained, and the ``model_cfg``
        that the file carries, if any.

    Raises:
        UserError: for a file that is missing or holds no CLIP weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"CLIP weights {str(path)!r}: there is no such file")
    try:
        content = _load(path)
    except Exception as error:
        reason = str(error).split("\n")[0]
        if isinstance(error, pickle.UnpicklingError):  # torch says how to load it unsafely
            reason = "it is no checkpoint of plain weights; give another file"
        raise UserError(f"CLIP weights {str(path)!r} cannot be read: {reason}") from error
    model_cfg = None
    if isinstance(content, Mapping):
        model_cfg = content.get("model_cfg")
        content = content.get("state_dict", content.get("model", content))
    if not isinstance(content, Mapping):
        raise UserError(
            f"CLIP weights {str(path)!r} cannot be read: it holds a {type(content).__name__} in "
            "place of a state dict; give another file"
        )
    weights = {
        key.removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if any(key.startswith(OVSEG_PREFIX) for key in weights):
        weights = {
            key.removeprefix(OVSEG_PREFIX): value
            for key, value in weights.items()
            if key.startswith(OVSEG_PREFIX)
        }
    weights = {key: value for key, value in weights.items() if key not in _NO_WEIGHTS}
    drop_untrained_prompts(weights)
    lacking = [key for key in _OF_CLIP if key not in weights]
    if lacking:
        raise UserError(
            f"{str(path)!r} holds no CLIP with a vision transformer ({lacking[0]} is missing); "
            "wanted is an OpenAI archive, a state dict, an open_clip training checkpoint or an "
            "OVSeg checkpoint"
        )
    if model_cfg is not None and not _is_model_config(model_cfg):
        raise UserError(
            f"CLIP weights {str(path)!r}: model_cfg is none of open_clip's, with embed_dim, "
            "vision_cfg (with layers) and text_cfg; mend it, or leave it out"
        )
    return weights, model_cfg


def drop_untrained_prompts(weights: dict[str, Tensor]) -> None:
    """Take mask prompts out of a CLIP's weights where they are all zero, as new ones are."""
    if PROMPTS in weights and not weights[PROMPTS].any():
        del weights[PROMPTS]


def is_openai_archive(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI's CLIPs come."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _is_model_config(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and isinstance(content.get("embed_dim"), int)
        and isinstance(content.get("vision_cfg"), Mapping)
        and isinstance(content["vision_cfg"].get("layers"), int)
        and isinstance(content.get("text_cfg"), Mapping)
    )


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if is_openai_archive(path):
        return torch.jit.load(path, map_location="cpu").state_dict()
    return torch.load(path, map_location="cpu", weights_only=True)


def load_clip_weights(model: open_clip.CLIP, weights: dict[str, Tensor], source: str) -> None:
    """Put ``weights`` into ``model``; mask prompts may be missing or not wanted.

    Raises:
        UserError: when a weight is missing, left over or of another shape, naming the first.
    """
    weights = dict(weights)
    wanted = model.state_dict()
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
    name = name.replace("/", "-")
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
