"""Backbones that others trained, as files that detectron2 reads.

``swin``: the official checkpoints of Swin Transformer. ``torchvision``: ResNets in torchvision's
naming, with one 7x7 stem convolution or with three 3x3 ones (ResNet-c, as for R101c).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ovseg.errors import UserError
from ovseg.utils.checkpoint_files import read_checkpoint, without_prefix
from ovseg.utils.write_checkpoint import write_detectron2_pickle

logger = logging.getLogger(__name__)

_OF_SWIN = ("patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table")
_OF_RESNET = ("conv1.weight", "layer4.0.conv1.weight")
# the classifier and the norm before it have no place in a backbone, whose outputs have their own
# norms; attention masks depend on the image's size and are made for each
_HEAD_PREFIXES = ("head.", "norm.")
_MASK_SUFFIX = ".attn_mask"

_NAME = re.compile(
    r"(?:layer(?P<layer>[1-4])\.(?P<block>\d+)\.)?(?P<part>\w+(?:\.\d)?)\.(?P<kind>\w+)"
)
_PARTS = {
    **{f"conv{n}": f"conv{n}" for n in (1, 2, 3)},
    **{f"bn{n}": f"conv{n}.norm" for n in (1, 2, 3)},
    "downsample.0": "shortcut",
    "downsample.1": "shortcut.norm",
}


def convert_swin(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a Swin backbone takes, under unchanged names.

    Raises:
        UserError: these are not the weights of a Swin Transformer in its official naming.
    """
    missing = [name for name in _OF_SWIN if name not in weights]
    if missing:
        raise UserError(f"no Swin Transformer in its official naming: {missing[0]} is missing")
    return {
        name: value
        for name, value in weights.items()
        if not name.startswith(_HEAD_PREFIXES) and not name.endswith(_MASK_SUFFIX)
    }


def resnet_name(name: str) -> str | None:
    """detectron2's name of a torchvision ResNet weight; ``None`` for what its backbones lack."""
    match = _NAME.fullmatch(name)
    if match is None or match["part"] not in _PARTS or match["kind"] == "num_batches_tracked":
        return None
    stage = f"res{int(match['layer']) + 1}.{match['block']}" if match["layer"] else "stem"
    return f"{stage}.{_PARTS[match['part']]}.{match['kind']}"


def convert_resnet(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a detectron2 ResNet takes, under its names.

    Raises:
        UserError: these are not the weights of a ResNet in torchvision's naming.
    """
    for name in _OF_RESNET:
        if name not in weights:
            raise UserError(f"no ResNet in torchvision's naming: {name} is missing")
    names = {name: resnet_name(name) for name in weights}
    return {new: weights[old] for old, new in names.items() if new is not None}


@dataclass(frozen=True)
class Conversion:
    """One kind of backbone file: names it always has, how it is converted, who trained it."""

    known: tuple[str, ...]
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    author: str


CONVERSIONS = {
    "swin": Conversion(_OF_SWIN, convert_swin, "Swin Transformer"),
    # layer4's name alone: every block ends like the stem's conv1
    "torchvision": Conversion(_OF_RESNET[1:], convert_resnet, "torchvision"),
}


def convert_file(
    source: str | os.PathLike[str], target: str | os.PathLike[str], kind: str = ""
) -> None:
    """Read a backbone's checkpoint, convert it, write it for detectron2, and log how many weights
    there are.

    Args:
        source: the checkpoint.
        target: ends in ``.pkl``.
        kind: of :data:`CONVERSIONS`; empty: told by the names of the weights.

    Raises:
        UserError: ``source`` cannot be read or is no such backbone, or ``target`` cannot be
            written.
    """
    held = read_checkpoint(source).weights
    for name, conversion in CONVERSIONS.items():
        weights = without_prefix(held, conversion.known)
        if kind == name or (not kind and conversion.known[0] in weights):
            break
    else:
        raise UserError(
            f"checkpoint {str(source)!r}: neither a Swin Transformer in its official naming nor a "
            "ResNet in torchvision's; only these are converted"
        )
    converted = conversion.convert(weights)
    write_detectron2_pickle(target, converted, conversion.author)
    left_out = len(held) - len(converted)
    logger.info("%s: %d weights, %d left out", target, len(converted), left_out)
