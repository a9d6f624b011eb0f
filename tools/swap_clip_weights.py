#!/usr/bin/env python3
"""Put adapted CLIP weights into an OVSeg checkpoint, or take them out of one.

    python tools/swap_clip_weights.py put OVSEG.pth ADAPTED_CLIP.pt NEW_OVSEG.pth --verify
    python tools/swap_clip_weights.py take OVSEG.pth CLIP.pt --name ViT-L/14 --verify

Both say whether mask prompts are in the result and which config keys go with it. All other
contents of the checkpoint stay as they are; of each weight the checkpoint's precision is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg.errors import UserError, cli_errors
from ovseg.modeling.clip import (
    OVSEG_PREFIX,
    architecture_of_name,
    build_untrained_clip,
    read_clip_file,
)
from ovseg.modeling.clip.weights import PROMPTS, drop_untrained_prompts
from ovseg.utils.io import atomic_path
from ovseg.utils.weights import read_checkpoint

NO_OBJECT = "clip_adapter.non_object_embedding"


def read_ovseg(path: Path) -> dict[str, Any]:
    """Read an OVSeg checkpoint whole: ``model`` and whatever else is in it.

    Raises:
        UserError: it is missing, cannot be read, or is no OVSeg.
    """
    content = read_checkpoint(path)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or getattr(model.get(NO_OBJECT), "ndim", 0) != 2:
        raise UserError(
            f"{str(path)!r} is no OVSeg checkpoint: it holds no trained head; give one that does"
        )
    return content


def clip_of(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The CLIP weights in an OVSeg checkpoint, under CLIP's own names."""
    weights = {
        key.removeprefix(OVSEG_PREFIX): value
        for key, value in checkpoint["model"].items()
        if key.startswith(OVSEG_PREFIX)
    }
    drop_untrained_prompts(weights)
    return weights


def check_fit(checkpoint: dict[str, Any], clip: dict[str, Tensor], source: str) -> None:
    """Raise :class:`UserError` unless ``clip`` can take the place of the checkpoint's CLIP.

    Mask prompts may be there or not and of any depth; every other weight must have the shape of
    the one it replaces. Of a checkpoint without CLIP only the width of the text features is known.
    """
    held = clip_of(checkpoint)
    width, given = checkpoint["model"][NO_OBJECT].shape[1], clip["text_projection"].shape[-1]
    if given != width:
        raise UserError(
            f"{source} has text features of width {given}, the OVSeg head wants {width}: take a "
            "CLIP of the architecture that the head was trained with"
        )
    problem = misfit(clip, held) if held else None
    if problem:
        raise UserError(f"{source} is not of the architecture of the checkpoint's CLIP: {problem}")


def misfit(clip: dict[str, Tensor], wanted: dict[str, Tensor]) -> str | None:
    """The first weight by which two CLIPs differ in architecture, mask prompts apart; or None."""
    for key in sorted((wanted.keys() | clip.keys()) - {PROMPTS}):
        if key not in clip:
            return f"{key} is missing"
        if key not in wanted:
            return f"{key} is left over"
        if clip[key].shape != wanted[key].shape:
            return f"{key} is {tuple(clip[key].shape)}, wanted {tuple(wanted[key].shape)}"
    return None


def described(clip: dict[str, Tensor], name: str) -> dict[str, Any]:
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


def same_text(checkpoint: dict[str, Any], clip: dict[str, Tensor]) -> bool:
    """Whether text features stay the same, by which the head was trained to classify."""
    return all(
        torch.equal(value.float(), clip[key].to(value.dtype).float())
        for key, value in clip_of(checkpoint).items()
        if not key.startswith("visual.") and key != "logit_scale"
    )


def put(checkpoint: dict[str, Any], clip: dict[str, Tensor]) -> dict[str, Any]:
    """The checkpoint with ``clip`` in place of its own CLIP."""
    held = clip_of(checkpoint)
    others = {k: v for k, v in checkpoint["model"].items() if not k.startswith(OVSEG_PREFIX)}
    usual = next(
        value.dtype for value in (*held.values(), *others.values()) if value.is_floating_point()
    )
    new = {
        OVSEG_PREFIX + key: value.to(held[key].dtype if key in held else usual)
        if value.is_floating_point()
        else value
        for key, value in clip.items()
    }
    return {**checkpoint, "model": {**others, **new}}


def config_keys(clip: dict[str, Tensor]) -> str:
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


def verify(path: Path, before: dict[str, Tensor], clip: dict[str, Tensor], prefix: str) -> int:
    """Read a written file again and compare it with the files it was made of.

    Args:
        path: of the result.
        before: weights of the OVSeg checkpoint; all but CLIP's must be in the result, bit for bit,
            if the result is an OVSeg checkpoint.
        clip: CLIP's weights; they must be in the result up to its precision.
        prefix: of CLIP's weights in the result.

    Returns:
        The number of weights compared.

    Raises:
        UserError: one differs, is missing or is left over.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    found = dict(content["model" if prefix else "state_dict"])
    wanted = {prefix + key: value for key, value in clip.items()}
    if prefix:
        wanted |= {k: v for k, v in before.items() if not k.startswith(OVSEG_PREFIX)}
    for key in wanted.keys() | found.keys():
        fits = key in found and key in wanted
        if not fits or not torch.equal(found[key], wanted[key].to(found[key].dtype)):
            raise UserError(f"--verify: {key} of the result is not what it should be")
    return len(wanted)


def _put(args: argparse.Namespace) -> None:
    checkpoint = read_ovseg(args.ovseg)
    clip, _ = read_clip_file(args.clip)
    check_fit(checkpoint, clip, str(args.clip))
    if not same_text(checkpoint, clip):
        print("warning: the text tower is not the one that the OVSeg head was trained with")
    _write(args, put(checkpoint, clip), clip, OVSEG_PREFIX)


def _take(args: argparse.Namespace) -> None:
    clip = clip_of(read_ovseg(args.ovseg))
    if not clip:
        raise UserError(f"{str(args.ovseg)!r} carries no CLIP weights to take out")
    content: dict[str, Any] = {"state_dict": clip}
    if args.name:
        # weights do not tell the activation and the number of heads
        content["model_cfg"] = described(clip, args.name)
    else:
        print("without --name the result reads as a CLIP of OpenAI's: QuickGELU, heads 64 wide")
    _write(args, content, clip, "")


def _write(
    args: argparse.Namespace, content: dict[str, Any], clip: dict[str, Tensor], prefix: str
) -> None:
    with atomic_path(args.output) as temporary:
        torch.save(content, temporary)
        if args.verify:
            before = torch.load(args.ovseg, map_location="cpu", weights_only=True)["model"]
            count = verify(temporary, before, clip, prefix)
            print(f"verified: {count} weights")
    print(f"{args.output}: {config_keys(clip)}")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="{put,take}")
    put_command = commands.add_parser("put", help="CLIP into an OVSeg checkpoint")
    put_command.add_argument("ovseg", type=Path, help="OVSeg checkpoint")
    put_command.add_argument("clip", type=Path, help="CLIP: of train.py, OpenAI's, another OVSeg's")
    put_command.set_defaults(action=_put)
    take_command = commands.add_parser("take", help="CLIP out of an OVSeg checkpoint")
    take_command.add_argument("ovseg", type=Path, help="OVSeg checkpoint")
    take_command.add_argument("--name", help="the CLIP's name, to be written with its weights")
    take_command.set_defaults(action=_take)
    for command in (put_command, take_command):
        command.add_argument("output", type=Path, help="file to write")
        command.add_argument("--verify", action="store_true", help="read it again and compare")
    args = parser.parse_args(arguments)
    with cli_errors():
        args.action(args)


if __name__ == "__main__":
    main()
