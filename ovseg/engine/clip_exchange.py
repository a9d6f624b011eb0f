"""Adapted CLIP weights into an OVSeg checkpoint, and out of one.

All other contents of the checkpoint stay as they are; of each weight the checkpoint's precision is
kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg.errors import UserError
from ovseg.modeling.clip import OVSEG_PREFIX, architecture_of_name, build_untrained_clip
from ovseg.modeling.clip.weights import PROMPTS, drop_untrained_prompts
from ovseg.utils.checkpoint_files import Checkpoint, read_checkpoint, without_prefix
from ovseg.utils.io import atomic_path

NO_OBJECT = "clip_adapter.non_object_embedding"


def read_ovseg(path: str | os.PathLike[str]) -> Checkpoint:
    """Read an OVSeg checkpoint whole: its weights and whatever else is in it.

    Raises:
        UserError: it is missing, cannot be read, or is no OVSeg.
    """
    checkpoint = read_checkpoint(path)
    weights = without_prefix(checkpoint.weights, (NO_OBJECT,))
    if NO_OBJECT not in weights or weights[NO_OBJECT].ndim != 2:
        raise UserError(
            f"{str(path)!r} is no OVSeg checkpoint: it holds no trained head; give one that does"
        )
    return Checkpoint(weights, checkpoint.entries, checkpoint.form)


def clip_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The CLIP weights among an OVSeg's, under CLIP's own names."""
    clip = {
        key.removeprefix(OVSEG_PREFIX): value
        for key, value in weights.items()
        if key.startswith(OVSEG_PREFIX)
    }
    drop_untrained_prompts(clip)
    return clip


def without_clip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other weights of an OVSeg."""
    return {key: value for key, value in weights.items() if not key.startswith(OVSEG_PREFIX)}


def check_clip_fits(weights: Mapping[str, Tensor], clip: Mapping[str, Tensor], source: str) -> None:
    """Raise :class:`UserError` unless ``clip`` can take the place of an OVSeg's CLIP.

    Mask prompts may be there or not and of any depth; every other weight must have the shape of
    the one it replaces. Of a checkpoint without CLIP only the width of the text features is known.
    """
    held = clip_of(weights)
    width, given = weights[NO_OBJECT].shape[1], feature_width(clip)
    if given is not None and given != width:
        raise UserError(
            f"{source} has text features of width {given}, the OVSeg head wants {width}: take a "
            "CLIP of the architecture that the head was trained with"
        )
    problem = misfit(clip, held) if held else None
    if problem:
        raise UserError(f"{source} is not of the architecture of the checkpoint's CLIP: {problem}")


def feature_width(clip: Mapping[str, Tensor]) -> int | None:
    """The width of a CLIP's features by its weights; None where no projection tells it."""
    for key in ("text_projection", "text.text_projection", "visual.proj"):
        if key in clip:
            return clip[key].shape[-1]
        if f"{key}.weight" in clip:  # a linear layer
            return clip[f"{key}.weight"].shape[0]
    return None


def misfit(clip: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """The first weight by which two CLIPs differ in architecture, mask prompts apart; or None."""
    for key in sorted((wanted.keys() | clip.keys()) - {PROMPTS}):
        if key not in clip:
            return f"{key} is missing"
        if key not in wanted:
            return f"{key} is left over"
        if clip[key].shape != wanted[key].shape:
            return f"{key} is {tuple(clip[key].shape)}, wanted {tuple(wanted[key].shape)}"
    return None


def described(clip: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """open_clip's model config of ``name``, for the vocabulary of ``clip``.

    Raises:
        UserError: ``clip`` is of another architecture, or ``name`` unknown.
    """
    architecture = architecture_of_name(name)
    rows = len(clip.get("token_embedding.weight", ()))
    architecture["text_cfg"] = {**architecture["text_cfg"], "vocab_size": rows}
    with torch.device("meta"):  # shapes alone
        wanted = build_untrained_clip(architecture, 0).state_dict()
    problem = misfit(clip, wanted)
    if problem:
        raise UserError(
            f"--name {name!r} is not the architecture of the checkpoint's CLIP: {problem}; give "
            "its own name"
        )
    return architecture


def same_text(weights: Mapping[str, Tensor], clip: Mapping[str, Tensor]) -> bool:
    """Whether text features stay the same, by which the head was trained to classify."""
    return all(
        torch.equal(value.float(), clip[key].to(value.dtype).float())
        for key, value in clip_of(weights).items()
        if not key.startswith("visual.") and key != "logit_scale"
    )


def put(
    checkpoint: Checkpoint, clip: Mapping[str, Tensor], model_cfg: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The content of a checkpoint with ``clip`` in place of its own CLIP.

    Args:
        checkpoint: of an OVSeg.
        clip: its new CLIP's weights.
        model_cfg: what the file of ``clip`` says of its architecture, if anything.
    """
    held, others = clip_of(checkpoint.weights), without_clip(checkpoint.weights)
    usual = next(
        value.dtype for value in (*held.values(), *others.values()) if value.is_floating_point()
    )
    new = {
        OVSEG_PREFIX + key: value.to(held[key].dtype if key in held else usual)
        if value.is_floating_point()
        else value
        for key, value in clip.items()
    }
    content = {**checkpoint.entries, "model": {**others, **new}}
    if "model_cfg" in content:  # of the CLIP that was
        del content["model_cfg"]
        if model_cfg is not None:
            content["model_cfg"] = dict(model_cfg)
    return content


def take(checkpoint: Checkpoint, name: str | None) -> dict[str, Any]:
    """The content of a file with an OVSeg's CLIP: ``state_dict`` and, where it is known,
    ``model_cfg``.

    Args:
        checkpoint: of an OVSeg.
        name: of its CLIP. Weights do not tell the activation and the number of heads.

    Raises:
        UserError: there is no CLIP in it, or one of another architecture than ``name``.
    """
    clip = clip_of(checkpoint.weights)
    if not clip:
        raise UserError("the checkpoint carries no CLIP weights to take out")
    model_cfg = described(clip, name) if name else checkpoint.entries.get("model_cfg")
    return {"state_dict": clip, **({"model_cfg": model_cfg} if model_cfg else {})}


def config_keys(clip: Mapping[str, Tensor]) -> str:
    """Whether mask prompts are in ``clip``, and the config keys that go with that."""
    if PROMPTS not in clip:
        return (
            "no mask prompts: set MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH 0 "
            "MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD False"
        )
    depth = len(clip[PROMPTS])
    return (
        f"mask prompts of depth {depth}: set MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH {depth} "
        "MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD True"
    )


def write(
    content: Mapping[str, Any], path: Path, wanted: Mapping[str, Tensor] | None = None
) -> None:
    """Write what :func:`put` or :func:`take` made, whole or not at all.

    Args:
        content: holds the weights as ``model`` or ``state_dict``.
        path: of the result.
        wanted: weights by their names in the result; it is read again and compared with them, each
            in the result's precision, before it takes its place.

    Raises:
        UserError: a weight differs, is missing or is left over.
        OSError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        torch.save(dict(content), temporary)
        if wanted is None:
            return
        found = read_checkpoint(temporary).weights
        for key in wanted.keys() | found.keys():
            fits = key in found and key in wanted
            if not fits or not torch.equal(found[key], wanted[key].to(found[key].dtype)):
                raise UserError(f"--verify: {key} of the result is not what it should be")
