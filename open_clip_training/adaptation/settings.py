"""What an adaptation run depends on, the defaults filled in."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from open_clip_training.adaptation.released import AS_IS, TEMPLATE
from ovseg.errors import UserError
from ovseg.modeling.clip import text_templates

LARGE_WIDTH = 1024  # of the vision transformer of ViT-L


@dataclass(frozen=True)
class AdaptationSettings:
    """Everything a run depends on besides its data, its CLIP and the number of processes."""

    train: str
    crops: str
    steps: int
    batch: int
    warmup: int
    lr: float
    weight_decay: float
    prompt_lr: float
    plain_loss: bool
    templates: tuple[str, ...]
    augment: bool
    precision: str
    seed: int
    #: of released pairs' background, where it is not 0
    fill_tolerance: int | None = None
    #: "drop", where background patches are left out
    background: str | None = None
    #: False, where crops are zoomed alone
    mirror: bool | None = None


def choose_settings(
    options: argparse.Namespace, pairs: int, width: int, world: int
) -> AdaptationSettings:
    """The settings of a run.

    Args:
        options: of the command line.
        pairs: how many there are.
        width: of CLIP's vision transformer.
        world: how many processes share the run.

    Raises:
        UserError: they do not fit each other or the number of pairs.
    """
    batch = options.batch_size
    if batch is None:
        batch = 256 if width >= LARGE_WIDTH else 1024
    if batch > pairs:
        raise UserError(f"--batch-size {batch} is more than the {pairs} pairs; give a smaller one")
    if batch % (world * options.accumulate):
        raise UserError(
            f"--batch-size {batch} must be a multiple of processes x --accumulate, "
            f"{world} x {options.accumulate}"
        )
    steps = options.epochs * (pairs // batch) if options.steps is None else options.steps
    if options.warmup >= steps:
        raise UserError(
            f"--warmup {options.warmup} must be less than the {steps} steps of the run; give a "
            "smaller one, or more --epochs or --steps"
        )
    return AdaptationSettings(
        train=options.train,
        crops=options.crops,
        steps=steps,
        batch=batch,
        warmup=options.warmup,
        lr=options.lr,
        weight_decay=options.weight_decay,
        prompt_lr=options.prompt_lr,
        plain_loss=options.plain_loss or options.published,
        templates=_templates(options.templates, options.captions, options.published),
        augment=options.augment,
        precision=options.precision,
        seed=options.seed,
        fill_tolerance=options.fill_tolerance or None,
        background=None if options.background == "fill" else options.background,
        mirror=False if options.published and options.augment else None,
    )


def _templates(kind: str | None, captions: str | None, published: bool) -> tuple[str, ...]:
    if captions == AS_IS:
        if kind is not None:
            raise UserError(f"--templates {kind!r}: with --captions as-is titles have none")
        return ("{}",)
    if kind is None:
        kind = TEMPLATE if published else "vild"
    if "{}" in kind:
        return (kind,)
    if kind not in ("vild", "imagenet"):
        raise UserError(f"--templates {kind!r}: give vild, imagenet, or a text with {{}}")
    return text_templates(kind, [])
