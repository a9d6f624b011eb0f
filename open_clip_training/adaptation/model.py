"""The CLIP to adapt, which of its weights train, and their optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import open_clip
import torch
from torch import nn

from ovseg.errors import UserError
from ovseg.modeling.clip import (
    architecture_of_file,
    architecture_of_name,
    build_untrained_clip,
    find_pretrained,
    load_clip_weights,
    read_clip_file,
)
from ovseg.modeling.clip.construction import takes_mask_prompts
from ovseg.modeling.clip.weights import PROMPTS, drop_untrained_prompts
from ovseg.utils.clip_names import is_clip_file
from ovseg.utils.digests import digest

DEFAULT_DEPTH = 3  # of mask prompts, as in the released checkpoints


def load_clip(
    name: str, pretrained: str, depth: int | None, *, prompts_train: bool
) -> tuple[open_clip.CLIP, dict[str, Any]]:
    """The CLIP to start from.

    Args:
        name: "ViT-B/16", another model of open_clip, or the path of a file with a CLIP: OpenAI's
            archive, a state dict, a training checkpoint.
        pretrained: open_clip's tag or the path of the weights of a name.
        depth: layers with mask prompts; None: as many as the weights have, or 3 if they train.
        prompts_train: whether mask prompts are wanted.

    Returns:
        The model in float32, new mask prompts zero, and its ``model_cfg`` for the checkpoint.

    Raises:
        UserError: there is no such CLIP, it cannot be had, or its prompts have another depth.
    """
    with _options_named():
        if is_clip_file(name):
            source = name
            weights, known = read_clip_file(source)
        else:
            known = architecture_of_name(name, pretrained)
            source = str(find_pretrained(name, pretrained))
            weights, _ = read_clip_file(source)
        model_cfg = architecture_of_file(source, weights, known)
        if not takes_mask_prompts(model_cfg):
            raise UserError(
                f"--clip {name!r}: its image tower is not open_clip's own vision transformer with "
                "a class token, the only one that is adapted here; take such a CLIP"
            )
    held = len(weights[PROMPTS]) if PROMPTS in weights else 0
    if depth is None:
        depth = held or (DEFAULT_DEPTH if prompts_train else 0)
    if held and depth != held:
        raise UserError(
            f"--mask-prompt-depth {depth}: {source} has mask prompts of depth {held}; leave the "
            "option out, or start from a CLIP without"
        )
    if depth and not held and not prompts_train:
        raise UserError(
            f"--mask-prompt-depth {depth}: {source} has no mask prompts, and --train visual trains "
            "none; leave the option out, or give --train both"
        )
    layers = model_cfg["vision_cfg"]["layers"]
    if not (1 if prompts_train else 0) <= depth <= layers:
        raise UserError(f"--mask-prompt-depth {depth} must lie in 1..{layers}, the layers of CLIP")
    model = build_untrained_clip(model_cfg, depth)
    with _options_named():
        load_clip_weights(model, weights, source)
    return model, model_cfg


@contextmanager
def _options_named() -> Iterator[None]:
    """Let errors name the options of train.py in place of the config's keys."""
    try:
        yield
    except UserError as error:
        text = str(error).replace("MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", "--clip")
        text = text.replace("MODEL.CLIP_ADAPTER.CLIP_PRETRAINED", "--pretrained")
        raise UserError(text.split(", or give a MODEL.WEIGHTS")[0]) from error


def choose_trained(model: open_clip.CLIP, train: str) -> None:
    """Freeze all but the weights that ``train`` names.

    Args:
        model: its text tower and temperature never train.
        train: "visual" (the vision transformer without mask prompts), "mask-prompts" (only
            ``visual.mask_embedding``) or "both".
    """
    model.requires_grad_(False).eval()
    for name, parameter in model.named_parameters():
        if name == PROMPTS:
            parameter.requires_grad = train in ("mask-prompts", "both")
        elif name.startswith("visual."):
            parameter.requires_grad = train in ("visual", "both")


def build_adaptation_optimizer(
    model: open_clip.CLIP, lr: float, weight_decay: float, prompt_lr: float
) -> torch.optim.AdamW:
    """AdamW over what :func:`choose_trained` left; gains, biases and prompts do not decay."""
    decayed, plain, prompts = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name == PROMPTS:
            prompts.append(parameter)
        elif parameter.ndim >= 2:
            decayed.append(parameter)
        else:
            plain.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "lr": lr, "weight_decay": weight_decay},
        {"params": plain, "lr": lr, "weight_decay": 0.0},
        {"params": prompts, "lr": prompt_lr, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def weights_digest(model: open_clip.CLIP) -> str:
    """What tells apart CLIPs: SHA-256 of the names and values of their weights."""
    weights = model.state_dict()
    drop_untrained_prompts(weights)  # how deep new ones are is told by their depth

    def parts() -> Iterator[str | memoryview]:
        for name, value in weights.items():
            yield name
            yield value.cpu().contiguous().numpy().data

    return digest(parts())
