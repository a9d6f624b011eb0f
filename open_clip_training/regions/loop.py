"""From a command line to a CLIP adapted to a shared pass: load, train, check, save."""

from __future__ import annotations

import argparse
import logging
import time

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from open_clip_training.adaptation.loop import check_device
from open_clip_training.adaptation.model import load_clip
from open_clip_training.common.regions import percent
from open_clip_training.common.run_state import history_path, seed_everything
from open_clip_training.common.stepping import stepped
from open_clip_training.regions.images import CropSettings, RegionImages, batches
from open_clip_training.regions.run import RegionRun, RegionSettings
from ovseg.engine import stopping
from ovseg.errors import UserError
from ovseg.modeling.clip import pixels_of, text_templates, word_features
from ovseg.utils.loading_process import loading_init

logger = logging.getLogger("train")
#: images a step, and steps, where the command line does not say
BATCH, STEPS = 32, 2000


@stopping.handled()
def adapt_to_regions(options: argparse.Namespace) -> None:
    """Adapt a CLIP to a shared pass as the command line says, in one process.

    Raises:
        UserError: an argument or the data cannot be used.
    """
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    seed_everything(options.seed)
    model, model_cfg = load_clip(options.clip, options.pretrained, None, prompts_train=False)
    vision = model_cfg["vision_cfg"]
    settings = region_settings(options, vision["image_size"], vision["layers"])
    patch = vision["patch_size"]
    size = max(1, round(settings.resolution / patch)) * patch
    crops = None
    if settings.teacher == "crops":
        side = vision["image_size"]
        crops = CropSettings((side, side), pixels_of(model)[0])
    images = RegionImages(options.train_data[0], size, patch, settings.augment, crops)
    if settings.batch > len(images):
        raise UserError(
            f"--batch-size {settings.batch} is more than the {len(images)} images; give a smaller"
        )
    with torch.no_grad():
        text = word_features(model.to(device), images.names, text_templates("vild", []))
    run = RegionRun(model, model_cfg, text, settings, torch.device(device))
    if options.resume:
        run.resume(options.output)
    trained = sum(parameter.numel() for parameter in run.trained.values()) / 1e6
    logger.info("%d images at %d pixels; %s: %.2f M parameters train, %d steps of %d images",
                len(images), size, settings.train, trained, settings.steps,
                settings.batch)  # fmt: skip
    train(run, images, options)


def region_settings(options: argparse.Namespace, image_size: int, layers: int) -> RegionSettings:
    """The settings of a run, the defaults filled in.

    Args:
        options: of the command line.
        image_size: of CLIP's input in pixels.
        layers: of its image tower.

    Raises:
        UserError: they do not fit each other.
    """
    steps = STEPS if options.steps is None else options.steps
    if options.warmup >= steps:
        raise UserError(
            f"--warmup {options.warmup} must be less than the {steps} steps; give a smaller one"
        )
    if options.first_block >= layers:
        raise UserError(f"--first-block {options.first_block}: this CLIP has {layers} blocks")
    return RegionSettings(
        train_data=options.train_data[0],
        train=options.train,
        teacher=options.teacher,
        steps=steps,
        batch=BATCH if options.batch_size is None else options.batch_size,
        warmup=options.warmup,
        lr=options.lr if options.train == "visual" else options.region_lr,
        weight_decay=options.weight_decay,
        resolution=options.resolution or image_size,
        first_block=options.first_block,
        augment=options.augment,
        seed=options.seed,
    )


def train(run: RegionRun, images: RegionImages, options: argparse.Namespace) -> None:
    """Take the run to its last step; check before and after."""
    settings, output = run.settings, options.output
    if run.step == 0:
        _check(run, options)
    order = batches(len(images), settings.batch, settings.steps, settings.seed, run.step)
    loader = DataLoader(images, sampler=list(order), batch_size=None, num_workers=options.workers,
                        worker_init_fn=loading_init())  # fmt: skip
    started = time.monotonic()
    for bar, batch in stepped(run, loader, output):
        bar.set_postfix(loss=f"{run.advance(batch):.3f}")
    _check(run, options)
    run.save(output)
    logger.info("%s: %.0f s; losses and accuracies in %s", output, time.monotonic() - started,
                history_path(output))  # fmt: skip


def _check(run: RegionRun, options: argparse.Namespace) -> None:
    """The share of true regions of ``--eval-data`` that get their class."""
    if not options.eval_data or any(done["step"] == run.step for done in run.checks):
        return
    settings, patch = run.settings, run.model.visual.conv1.kernel_size[0]
    size = max(1, round(settings.resolution / patch)) * patch
    held_out = RegionImages(options.eval_data, size, patch, augment=False)
    text, right, total = run.text, 0, 0
    with torch.no_grad():
        templates = text_templates("vild", [])
        run.text = word_features(run.model, held_out.names, templates).to(run.device)
    count = min(len(held_out), options.eval_images or len(held_out))
    for index in tqdm(range(count), desc=options.eval_data, leave=False, disable=None):
        found, regions = run.right(held_out[[(index, 0)]])
        right, total = right + found, total + regions
    run.text = text
    accuracy = percent(right / max(total, 1), 2)
    run.checks.append({"step": run.step, "regions": total, "accuracy": accuracy})
    logger.info("step %d: %s %% of %d regions right", run.step, accuracy, total)
