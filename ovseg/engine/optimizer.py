"""The published optimizer: parameter groups and clipping of the whole model's gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from ovseg.errors import UserError

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)
_NO_DECAY = ("relative_position_bias_table", "absolute_pos_embed")


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    """The parameters that are trained, by learning rate and weight decay.

    The backbone's learning rate is multiplied by ``SOLVER.BACKBONE_MULTIPLIER``. Weight decay is
    ``WEIGHT_DECAY``, but ``WEIGHT_DECAY_NORM`` for normalisation layers, ``WEIGHT_DECAY_EMBED`` for
    embeddings, and 0 for Swin's position tables. Frozen parameters (CLIP's) are in no group.

    Returns:
        One group for each combination, in order of first appearance: fewer, larger groups update
        faster than one for each parameter, and to the same numbers.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, module, value in _trained(model):
        rate = cfg.SOLVER.BASE_LR
        if "backbone" in name:
            rate *= cfg.SOLVER.BACKBONE_MULTIPLIER
        decay = cfg.SOLVER.WEIGHT_DECAY
        if any(part in name for part in _NO_DECAY):
            decay = 0.0
        if isinstance(module, _NORMS):
            decay = cfg.SOLVER.WEIGHT_DECAY_NORM
        elif isinstance(module, nn.Embedding):
            decay = cfg.SOLVER.WEIGHT_DECAY_EMBED
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(value)
    return list(groups.values())


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, value in module.named_parameters(recurse=False):
            if value.requires_grad and value not in seen:
                seen.add(value)
                yield f"{module_name}.{name}", module, value


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that ``cfg.SOLVER`` describes.

    With ``CLIP_GRADIENTS.CLIP_TYPE full_model`` the norm of the whole model's gradient is clipped
    to ``CLIP_VALUE`` before every step; detectron2's other types apply to each parameter.

    Raises:
        UserError: nothing to train.
    """
    groups = parameter_groups(cfg, model)
    if not groups:
        raise UserError("the model has no parameter to train; check what the config freezes")
    # one fused kernel is several times faster on a CPU; on a GPU it would leave a gradient scaler's
    # scale on what is clipped
    fused = all(value.device.type == "cpu" for group in groups for value in group["params"])
    kinds = {
        "ADAMW": lambda: torch.optim.AdamW(groups, cfg.SOLVER.BASE_LR, fused=fused),
        "SGD": lambda: torch.optim.SGD(
            groups, cfg.SOLVER.BASE_LR, momentum=cfg.SOLVER.MOMENTUM, nesterov=cfg.SOLVER.NESTEROV
        ),
    }
    optimizer = kinds[cfg.SOLVER.OPTIMIZER]()
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED and clip.CLIP_TYPE == "full_model":
        if clip.CLIP_VALUE > 0:
            _clip_before_step(optimizer, clip.CLIP_VALUE, clip.NORM_TYPE)
        return optimizer
    return maybe_add_gradient_clipping(cfg, optimizer)


def _clip_before_step(optimizer: torch.optim.Optimizer, value: float, norm_type: float) -> None:
    def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [value for group in optimizer.param_groups for value in group["params"]]
        nn.utils.clip_grad_norm_(parameters, value, norm_type)

    # a hook runs after a gradient scaler has undone its scale, as clipping must
    optimizer.register_step_pre_hook(clip)
