"""From a command line to an adapted CLIP: load, train, check, save."""

from __future__ import annotations

import argparse
import functools
import logging
import time
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from detectron2.utils import comm
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from open_clip_training.adaptation.batches import BatchOrder, PairImages
from open_clip_training.adaptation.class_folders import ClassFolderCheck
from open_clip_training.adaptation.eval_data import eval_data_check
from open_clip_training.adaptation.frozen_clip import learn_prompts
from open_clip_training.adaptation.model import choose_trained, load_clip
from open_clip_training.adaptation.pairs import read_given_pairs
from open_clip_training.adaptation.prompts import start_prompts
from open_clip_training.adaptation.released import FilledBackground
from open_clip_training.adaptation.run import AdaptationRun
from open_clip_training.adaptation.settings import choose_settings
from open_clip_training.adaptation.zero_shot import ZeroShotCheck
from open_clip_training.common.processes import Processes
from open_clip_training.common.run_state import history_path, seed_everything
from open_clip_training.common.scripts import log_to_stderr
from open_clip_training.common.stepping import SAVE_SECONDS
from ovseg.engine import stopping
from ovseg.engine.joining import stop_agreed
from ovseg.engine.processes import start
from ovseg.errors import UserError
from ovseg.utils.io import folder_stays
from ovseg.utils.loading_process import loading_init

logger = logging.getLogger("train")


def adapt(options: argparse.Namespace) -> None:
    """Adapt a CLIP as the command line says, in this process and those that share the run.

    Raises:
        UserError: an argument or the data cannot be used.
    """
    device = _device(options)
    start(functools.partial(_adapt_here, device, options), options, device=device, output=None)


@stopping.handled()
def learn(options: argparse.Namespace) -> None:
    """Learn text prompts or a template map as the command line says, in this process.

    Raises:
        UserError: an argument or the data cannot be used.
    """
    device = _device(options)
    log_to_stderr(logging.INFO)
    learn_prompts(options, torch.device(device))


def _device(options: argparse.Namespace) -> str:
    device: str | None = options.device
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    return device


def _adapt_here(device: str, options: argparse.Namespace) -> None:
    processes = Processes.present(device)
    log_to_stderr(logging.WARNING if processes.rank else logging.INFO)
    _adapt_in(processes, options)


def check_device(name: str) -> None:
    """Check that there is such a device.

    Raises:
        UserError: there is none.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name!r} is none; give cuda or cpu") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name!r}: there is no such GPU ({torch.cuda.device_count()} are seen); give "
            "cpu, or look at the driver"
        )


def _adapt_in(processes: Processes, options: argparse.Namespace) -> None:
    """Load, train, check and save in one of the processes."""
    seed_everything(options.seed)
    model, model_cfg = load_clip(
        options.clip,
        options.pretrained,
        options.mask_prompt_depth,
        prompts_train=options.train != "visual",
    )
    choose_trained(model, options.train)
    with_masks = model.visual.mask_prompt_depth > 0 or options.background == "drop"
    pairs = read_given_pairs(options, with_masks)
    nouns = [pair.noun for pair in pairs]
    width = model.visual.conv1.out_channels
    settings = choose_settings(options, len(pairs), width, processes.world)
    images = PairImages(pairs, model.visual.image_size, with_masks)
    run = AdaptationRun(model, model_cfg, nouns, settings, processes, options.accumulate)
    if options.train != "visual" and not model.visual.mask_embedding.any():
        start_prompts(model, images, options.seed)  # they are new
        # computed in floating point, they could differ in their last bits from GPU to GPU
        processes.copy_first(model.visual.mask_embedding.data)
    if options.resume:
        run.resume(options.output)
    check = eval_data_check(options)
    if check is not None:
        check.drop_background = options.background == "drop"
    if options.fill_tolerance and not (
        any(isinstance(pair.mask, FilledBackground) for pair in pairs)
        or isinstance(check, ClassFolderCheck)
    ):
        raise UserError(
            f"--fill-tolerance {options.fill_tolerance} is for crops without mask files, and here "
            "are none; leave it out"
        )
    logger.info("%d pairs of %d nouns, %s in memory", len(pairs), len(set(nouns)),
                "kept" if images.cached else "not kept")  # fmt: skip
    logger.info("%s: %.2f M of %.2f M parameters train, %d steps of %d crops in %d processes",
                settings.train, sum(p.numel() for p in run.trained.values()) / 1e6,
                sum(p.numel() for p in model.parameters()) / 1e6, settings.steps, settings.batch,
                processes.world)  # fmt: skip
    train(run, images, check, options.output, options.workers)


def train(
    run: AdaptationRun, images: PairImages, check: ZeroShotCheck | None, output: Path, workers: int
) -> None:
    """Take the run to its last step; check after every epoch, save then and every five minutes."""
    settings, processes = run.settings, run.processes

    def is_checked() -> bool:
        return run.step == settings.steps or run.step % (len(images) // settings.batch) == 0

    order = BatchOrder(
        len(images), settings.batch, settings.steps, settings.seed,
        first_step=run.step, rank=processes.rank, world=processes.world,
    )  # fmt: skip
    loader = DataLoader(
        images,
        sampler=order,
        batch_size=None,  # the sampler gives whole batches
        num_workers=0 if images.cached else workers,
        worker_init_fn=loading_init(),
    )
    writer = None
    if processes.rank == 0:
        folder = output.with_name(f"{output.stem}_tensorboard")
        if not run.step:  # the curves of an earlier run would be mixed with those of this one
            for file in folder.glob("events.out.tfevents.*"):
                file.unlink()
        # what was written of steps after the last that is saved
        writer = SummaryWriter(folder, purge_step=run.step + 1 if run.step else None)
    started, first = time.monotonic(), run.step
    if is_checked():
        # of a resumed run, it may be the check during which the run was stopped
        _check(run, check, writer, output if run.step else None)
    saved = time.monotonic()
    bar = tqdm(total=settings.steps, initial=run.step, unit="step", disable=processes.rank > 0)
    # an error is said on a line of its own
    with (
        bar,
        nullcontext() if writer is None else closing(writer),
        folder_stays(output.parent),
        stopping.step_by_step("the training ends this step and is saved"),
    ):
        for batch in loader:
            loss = run.advance(batch, order.indices(run.step))
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}")
            if writer:
                writer.add_scalar("loss", loss, run.step)
                writer.add_scalar("lr", run.optimizer.param_groups[0]["lr"], run.step)
            ends = stop_agreed(run.step) and run.step < settings.steps
            if ends or is_checked() or time.monotonic() - saved > SAVE_SECONDS:
                run.save(output)
                saved = time.monotonic()
            if ends:
                comm.synchronize()  # a process that ends takes the others with it
                raise stopping.stopped()
            if is_checked():
                _check(run, check, writer, output)
    seconds = time.monotonic() - started
    logger.info("%s: %d steps in %.0f s; %d of %d pairs could not be used; losses and accuracies "
                "in %s", output, run.step - first, seconds, len(run.left_out), len(images),
                history_path(output))  # fmt: skip


def _check(
    run: AdaptationRun,
    check: ZeroShotCheck | None,
    writer: SummaryWriter | None,
    output: Path | None,
) -> None:
    """Measure where that was not done, and save the run again, for its record."""
    if check is None or any(done["step"] == run.step for done in run.checks):
        return
    with stopping.at_once():  # the run is saved already
        result = check(run.model, run.processes)
    run.checks.append({"step": run.step, **result})
    logger.info("step %d: zero-shot on %s %s", run.step, check.name, result)
    if writer:
        for name, value in result.items():
            writer.add_scalar(f"{check.name}/{name}", value, run.step)
    if output is not None:
        run.save(output)
