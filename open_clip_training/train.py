"""Adapt CLIP to masked crops by mask-noun pairs: fine-tuning, mask prompt tuning (paper 3.2, 3.3).

    python open_clip_training/train.py --clip ViT-B/16 --train-data pairs/pairs.csv \\
        --train visual --output output/adapted/clip.pt
    torchrun --nproc-per-node 8 open_clip_training/train.py --clip output/adapted/clip.pt \\
        --train-data pairs/pairs.csv --train mask-prompts --output output/adapted/clip_prompts.pt

The text tower and the temperature stay as they are. Of a batch, crops of the same noun are not each
other's negatives (--plain-loss: they are, as published). The loss is over the whole batch however
many processes and passes (--accumulate) share it, and gives the same curve.

Beside --output are written: <name>_resume.pt (for --resume), <name>_history.json (losses,
accuracies, counts) and <name>_tensorboard. The result is a checkpoint of open_clip's form, which
MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME and CLIP_PRETRAINED take, as does --clip.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import tempfile
import time
from pathlib import Path

import torch
from open_clip_train.distributed import init_distributed_device_so
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from open_clip_training.run_state import check_ranges, seed_everything
from open_clip_training.train_data import BatchOrder, PairImages
from open_clip_training.train_eval import RegionCheck
from open_clip_training.train_model import choose_trained, load_clip
from open_clip_training.train_pairs import read_pairs
from open_clip_training.train_processes import Processes
from open_clip_training.train_prompts import start_prompts
from open_clip_training.train_run import Run, Settings, history_path
from ovseg.errors import UserError, cli_errors
from ovseg.modeling.clip import text_templates

logger = logging.getLogger("train")
SAVE_SECONDS = 300
LARGE_WIDTH = 1024  # of the vision transformer of ViT-L
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("epochs", "steps", "accumulate"), (1, math.inf)),
    **dict.fromkeys(("mask_prompt_depth", "warmup", "workers", "eval_images"), (0, math.inf)),
    **dict.fromkeys(("lr", "weight_decay", "prompt_lr"), (0, math.inf)),
    "batch_size": (2, math.inf),
    "seed": (0, 2**32 - 1),
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--clip", required=True, help="where to start: ViT-B/16, ViT-L/14, another name, a file")
    add("--pretrained", default="openai", help="open_clip's tag, or a file, of a name's weights")
    add("--train-data", required=True, help="pairs.csv, its folder, or 'pairs-*.tar'")
    add("--output", type=Path, required=True, help="the checkpoint to write")
    add("--train", choices=("visual", "mask-prompts", "both"), default="visual",
        help="fine-tuning, mask prompt tuning, both at once")  # fmt: skip
    add("--mask-prompt-depth", type=int, help="default: the CLIP's own; 3 for new mask prompts")
    add("--crops", choices=("masked", "unmasked"), default="masked",
        help="fill the background of crops, or leave it (the control)")  # fmt: skip
    add("--plain-loss", action="store_true", help="crops of one noun are each other's negatives")
    add("--templates", default="vild",
        help="vild, imagenet (a random one for each noun and step), or a text with {}")  # fmt: skip
    add("--no-augment", dest="augment", action="store_false", help="neither mirror nor zoom")
    add("--epochs", type=int, default=5)
    add("--steps", type=int, help="instead of --epochs")
    add("--batch-size", type=int, help="of all processes; default: 256 for ViT-L, else 1024")
    add("--accumulate", type=int, default=1, help="passes a batch: less memory, the same result")
    add("--warmup", type=int, default=100, help="steps")
    add("--lr", type=float, default=5e-6, help="of fine-tuning")
    add("--weight-decay", type=float, default=0.2, help="of fine-tuning")
    add("--prompt-lr", type=float, default=0.05, help="of mask prompts, which do not decay")
    add("--precision", choices=("fp32", "amp", "amp_bf16"), default="fp32")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--workers", type=int, default=4, help="loading processes; unused where all fits in memory")
    add("--eval-data", help="a registered data set (ade20k_sem_seg_val), or the yaml of your own")
    add("--eval-images", type=int, default=0, help="check on its first so many pictures; 0: all")
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="continue a stopped run")
    options = parser.parse_args(arguments)
    check_ranges(options, RANGES)
    return options


def main(arguments: list[str] | None = None) -> None:
    """Train as the command line says.

    Raises:
        UserError: an argument or the data cannot be used.
    """
    options = parse_arguments(arguments)
    check_device(options.device)
    check_output(options.output, options.clip)
    place = init_distributed_device_so(device=options.device)
    processes = Processes(torch.device(place["device"]), place["global_rank"], place["world_size"])
    if processes.rank:
        logging.getLogger().setLevel(logging.WARNING)
    try:
        adapt(options, processes)
    finally:
        if place["distributed"]:
            torch.distributed.destroy_process_group()


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


def check_output(path: Path, clip: str) -> None:
    """Check that the result can be written and spoils nothing, before hours of training.

    Raises:
        UserError: it cannot.
    """
    if path.is_dir():
        raise UserError(f"--output {str(path)!r} is a folder; give a file, such as {path}/clip.pt")
    if path.is_file() and Path(clip).is_file() and path.samefile(clip):
        raise UserError(
            f"--output {str(path)!r} is the file of --clip, which a resumed run would need again; "
            "give another"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(
            f"--output {str(path)!r} cannot be written ({error.strerror}); give another place"
        ) from error


def adapt(options: argparse.Namespace, processes: Processes) -> None:
    """Load, train, check and save in one of the processes."""
    seed_everything(options.seed)
    model, model_cfg = load_clip(
        options.clip,
        options.pretrained,
        options.mask_prompt_depth,
        prompts_train=options.train != "visual",
    )
    choose_trained(model, options.train)
    with_masks = model.visual.mask_prompt_depth > 0
    pairs = read_pairs(options.train_data, masked=options.crops == "masked", with_masks=with_masks)
    nouns = [pair.noun for pair in pairs]
    settings = choose_settings(options, len(pairs), model.visual.conv1.out_channels, processes)
    images = PairImages(pairs, model.visual.image_size, with_masks)
    run = Run(model, model_cfg, nouns, settings, processes, options.accumulate)
    if options.train != "visual" and not model.visual.mask_embedding.any():
        start_prompts(model, images, options.seed)  # they are new
        # computed in floating point, they could differ in their last bits from GPU to GPU
        processes.copy_first(model.visual.mask_embedding.data)
    if options.resume:
        run.resume(options.output)
    check = RegionCheck(options.eval_data, options.eval_images) if options.eval_data else None
    logger.info("%d pairs of %d nouns, %s in memory", len(pairs), len(set(nouns)),
                "kept" if images.cached else "not kept")  # fmt: skip
    logger.info("%s: %.2f M of %.2f M parameters train, %d steps of %d crops in %d processes",
                settings.train, sum(p.numel() for p in run.trained.values()) / 1e6,
                sum(p.numel() for p in model.parameters()) / 1e6, settings.steps, settings.batch,
                processes.world)  # fmt: skip
    train(run, images, check, options.output, options.workers)


def choose_settings(
    options: argparse.Namespace, pairs: int, width: int, processes: Processes
) -> Settings:
    """The settings of a run, the defaults filled in.

    Raises:
        UserError: they do not fit each other or the number of pairs.
    """
    batch = options.batch_size
    if batch is None:
        batch = 256 if width >= LARGE_WIDTH else 1024
    if batch > pairs:
        raise UserError(f"--batch-size {batch} is more than the {pairs} pairs; give a smaller one")
    shares = processes.world * options.accumulate
    if batch % shares:
        raise UserError(
            f"--batch-size {batch} must be a multiple of processes x --accumulate, "
            f"{processes.world} x {options.accumulate}"
        )
    steps = options.epochs * (pairs // batch) if options.steps is None else options.steps
    if options.warmup >= steps:
        raise UserError(
            f"--warmup {options.warmup} must be less than the {steps} steps of the run; give a "
            "smaller one, or more --epochs or --steps"
        )
    kind = options.templates
    if "{}" not in kind and kind not in ("vild", "imagenet"):
        raise UserError(f"--templates {kind!r}: give vild, imagenet, or a text with {{}}")
    templates = (kind,) if "{}" in kind else text_templates(kind, [])
    return Settings(
        train=options.train,
        crops=options.crops,
        steps=steps,
        batch=batch,
        warmup=options.warmup,
        lr=options.lr,
        weight_decay=options.weight_decay,
        prompt_lr=options.prompt_lr,
        plain_loss=options.plain_loss,
        templates=templates,
        augment=options.augment,
        precision=options.precision,
        seed=options.seed,
    )


def train(
    run: Run, images: PairImages, check: RegionCheck | None, output: Path, workers: int
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
    )
    writer = None
    if processes.rank == 0:
        writer = SummaryWriter(
            output.with_name(f"{output.stem}_tensorboard"), purge_step=run.step or None
        )
    started, first = time.monotonic(), run.step
    if is_checked():
        # of a resumed run, it may be the check during which the run was stopped
        _check(run, check, writer, output if run.step else None)
    saved = time.monotonic()
    bar = tqdm(total=settings.steps, initial=run.step, unit="step", disable=processes.rank > 0)
    for batch in loader:
        loss = run.advance(batch, order.indices(run.step))
        bar.update()
        bar.set_postfix(loss=f"{loss:.3f}")
        if writer:
            writer.add_scalar("loss", loss, run.step)
            writer.add_scalar("lr", run.optimizer.param_groups[0]["lr"], run.step)
        if is_checked() or time.monotonic() - saved > SAVE_SECONDS:
            run.save(output)
            saved = time.monotonic()
        if is_checked():
            _check(run, check, writer, output)
    bar.close()
    if writer:
        writer.close()
    seconds = time.monotonic() - started
    logger.info("%s: %d steps in %.0f s; %d of %d pairs could not be used; losses and accuracies "
                "in %s", output, run.step - first, seconds, len(run.left_out), len(images),
                history_path(output))  # fmt: skip


def _check(
    run: Run, check: RegionCheck | None, writer: SummaryWriter | None, output: Path | None
) -> None:
    """Measure where that was not done, and save the run again, for its record."""
    if check is None or any(done["step"] == run.step for done in run.checks):
        return
    result = check(run.model, run.processes)
    run.checks.append({"step": run.step, **result})
    logger.info("step %d: zero-shot on %s %s", run.step, check.name, result)
    if writer:
        for name, value in result.items():
            writer.add_scalar(f"{check.name}/{name}", value, run.step)
    if output is not None:
        run.save(output)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with cli_errors():
        main()
