"""From a command line to a pretrained backbone: load, train, check, save."""

from __future__ import annotations

import argparse
import json
import logging
import time

import torch
from torch.utils.data import DataLoader

from open_clip_training.backbone.run import BackboneRun, BackboneSettings, RegionClassifier
from open_clip_training.common.regions import percent
from open_clip_training.common.run_state import history_path, seed_everything
from open_clip_training.common.stepping import stepped
from open_clip_training.regions.images import RegionImages, batches
from ovseg.config import setup_cfg
from ovseg.engine import stopping
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.trainer import Trainer
from ovseg.errors import UserError
from ovseg.modeling import OVSeg
from ovseg.utils.digests import digest
from ovseg.utils.loading_process import loading_init

logger = logging.getLogger("pretrain_backbone")


@stopping.handled()
def pretrain_backbone(options: argparse.Namespace) -> None:
    """Pretrain a config's backbone as the command line says.

    Raises:
        UserError: an argument, the config or the data cannot be used.
    """
    cfg = setup_cfg(options.config_file, options.opts)
    settings = BackboneSettings(
        steps=options.steps,
        batch=options.batch_size,
        warmup=options.warmup,
        lr=options.lr,
        weight_decay=options.weight_decay,
        size=options.size,
        seed=options.seed,
    )
    seed_everything(settings.seed)
    model = Trainer.build_model(cfg)
    assert isinstance(model, OVSeg)
    OVSegCheckpointer(model, cfg=cfg).load(cfg.MODEL.WEIGHTS)
    feature = options.feature or cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
    shapes = model.backbone.output_shape()
    if feature not in shapes:
        raise UserError(f"--feature {feature}: the backbone has {', '.join(shapes)}")
    stride = shapes[feature].stride
    if settings.size % stride:
        raise UserError(
            f"--size {settings.size}: give a multiple of {stride}, the stride of {feature}"
        )
    images = RegionImages(options.train_data, settings.size, stride, augment=True)
    if settings.batch > len(images):
        raise UserError(f"--batch-size {settings.batch} is more than the {len(images)} images")
    held_out = None
    if options.eval_data:
        held_out = RegionImages(options.eval_data, settings.size, stride, augment=False)
        _check_names(images.names, held_out.names, options)
    text = model.clip_adapter.text_features(images.names)[:-1]
    classifier = RegionClassifier(
        model.backbone, feature, shapes[feature].channels, text, model.pixel_mean,
        model.pixel_std, bgr=cfg.INPUT.FORMAT == "BGR",
    ).to(model.device)  # fmt: skip
    shapes_of = [f"{name} {tuple(p.shape)}" for name, p in classifier.named_parameters()]
    made_of = {
        "train_data": options.train_data,
        "classes": len(images.names),
        "number of images": len(images),
        "feature": feature,
        "class names": digest([json.dumps(images.names)]),
        "the backbone": digest(shapes_of),
    }
    run = BackboneRun(classifier, settings, made_of)
    if options.resume:
        run.resume(options.output)
    count = sum(parameter.numel() for parameter in model.backbone.parameters())
    logger.info("%d images at %d pixels, %d classes, %.2f M parameters in the backbone, %s",
                len(images), settings.size, len(images.names), count / 1e6, settings)  # fmt: skip
    train(run, images, held_out, options)


def train(
    run: BackboneRun,
    images: RegionImages,
    held_out: RegionImages | None,
    options: argparse.Namespace,
) -> None:
    """Take the run to its last step, and check it now and then."""
    settings, output = run.settings, options.output
    order = batches(len(images), settings.batch, settings.steps, settings.seed, run.step)
    loader = DataLoader(images, sampler=list(order), batch_size=None, num_workers=options.workers,
                        worker_init_fn=loading_init())  # fmt: skip

    def is_checked() -> bool:
        due = options.eval_every and run.step % options.eval_every == 0
        return held_out is not None and (run.step == settings.steps or due)

    def check() -> None:
        assert held_out is not None
        with stopping.at_once():  # the run is saved already
            _check(run, held_out, options)

    started = time.monotonic()
    smooth = None
    if run.step and is_checked() and all(done["step"] != run.step for done in run.checks):
        check()  # during which the run was stopped
        run.save(output)
    for bar, batch in stepped(run, loader, output):
        loss = run.advance(batch)
        smooth = loss if smooth is None else 0.95 * smooth + 0.05 * loss
        bar.set_postfix(loss=f"{smooth:.3f}")
        if is_checked():
            run.save(output)
            check()
    logger.info("%s: %.0f s; losses and accuracies in %s", output, time.monotonic() - started,
                history_path(output))  # fmt: skip


def _check_names(trained: list[str], held_out: list[str], options: argparse.Namespace) -> None:
    """The first classes of the data set that is held out must be those that are learned."""
    if held_out[: len(trained)] != trained:
        raise UserError(
            f"--eval-data {options.eval_data} does not begin with the classes of --train-data "
            f"{options.train_data}; give one that does, or --eval-data ''"
        )


def _check(run: BackboneRun, held_out: RegionImages, options: argparse.Namespace) -> None:
    """The share of true regions of ``--eval-data`` that get their class, of those learned."""
    classes = run.made_of["classes"]
    right = torch.zeros(classes)
    total = torch.zeros(classes)
    for index in range(min(len(held_out), options.eval_images or len(held_out))):
        batch = held_out[[(index, 0)]]
        batch.labels[batch.labels >= classes] = -1  # never learned
        if (batch.labels < 0).all():
            continue
        labels, hits = run.right(batch)
        total += torch.bincount(labels, minlength=classes)
        right += torch.bincount(labels[hits], minlength=classes)
    known = total > 0
    accuracy = percent(right.sum() / total.sum().clamp(1), 1)
    by_class = percent((right[known] / total[known]).mean(), 1)
    run.checks.append(
        {"step": run.step, "regions": int(total.sum()), "accuracy": accuracy, "by_class": by_class}
    )
    logger.info("step %d: %s %% of %d regions right, %s %% in the mean over classes", run.step,
                accuracy, int(total.sum()), by_class)  # fmt: skip
