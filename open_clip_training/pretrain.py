"""Pretrain the embedded CLIP on whole StickerScenes pictures and their captions.

    python datasets/prepare_stickerscenes.py --only clip dev
    python open_clip_training/pretrain.py --output output/clip_tiny/clip.pt

A small CLIP of open_clip's own class, contrastive loss, Muon for the block matrices and AdamW for
the rest. Pictures are whole scenes: never masked, never cut along a mask. In the first part of the
run half of the patches are dropped (as in FLIP, arXiv 2212.00794), which halves its time.

1100 steps take 43 minutes on two CPU cores without AVX-512 or bfloat16. On dev, with perfect masks
and the ViLD templates, 83 % of all objects are then right among 168 names, and 62 % of all regions
among 186: regions of stuff with holes the shape of objects are often taken for objects. In the
never-seen style of test_style it is 51 % of the objects.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import open_clip

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from open_clip_training.pretrain_data import load_pictures
from open_clip_training.pretrain_run import Run, Settings, tokens_in_use
from open_clip_training.zero_shot import load_regions, zero_shot
from ovseg.data.splits import data_root
from ovseg.errors import UserError, cli_errors

logger = logging.getLogger("pretrain")
MODEL_CONFIG = (
    Path(__file__).resolve().parents[1] / "ovseg/modeling/clip/model_configs/ovseg-tiny-clip.json"
)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = data_root() / "stickerscenes"
    parser.add_argument("--root", type=Path, default=root, help="the StickerScenes folder")
    parser.add_argument("--train-data", type=Path, help="captions (default: ROOT/clip_train.csv)")
    parser.add_argument("--output", type=Path, default=Path("output/clip_tiny/clip.pt"))
    parser.add_argument("--model-config", type=Path, default=MODEL_CONFIG)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--batch-size", type=int, default=Settings.batch)
    parser.add_argument("--patch-dropout", type=float, default=Settings.patch_dropout)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--resume", action="store_true", help="continue a stopped run")
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--eval-every", type=int, default=300, help="0: only at the end")
    parser.add_argument("--eval-pictures", type=int, default=300, help="of dev, 0: no check")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train as the command line says.

    Raises:
        UserError: an argument or the data cannot be used.
    """
    options = parse_arguments(arguments)
    settings = replace(
        Settings(),
        steps=options.steps,
        batch=options.batch_size,
        seed=options.seed,
        patch_dropout=options.patch_dropout,
    )
    config = json.loads(options.model_config.read_text(encoding="utf-8"))
    size = config["vision_cfg"]["image_size"]
    tokenizer = open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
    table = options.train_data or options.root / "clip_train.csv"
    data = load_pictures(
        table, size, tokenizer, lambda captions: tokens_in_use(tokenizer, captions)
    )
    if len(data.images) < settings.batch:
        raise UserError(
            f"--batch-size {settings.batch} is more than the {len(data.images)} pictures"
        )
    run = Run(data, config, settings)
    if options.resume:
        run.resume(options.output)
    regions = None
    if options.eval_pictures:
        regions = load_regions(options.root, "dev", size, options.eval_pictures)
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    logger.info("%d pictures, %d tokens, %.2f M parameters, %s", len(data.images),
                len(data.token_ids), parameters / 1e6, settings)  # fmt: skip
    started, first, smooth = time.monotonic(), run.step, math.nan
    while run.step < settings.steps:
        loss = run.advance()
        smooth = loss if math.isnan(smooth) else 0.95 * smooth + 0.05 * loss
        if run.step % 20 == 0 or run.step == first + 3:
            seconds = (time.monotonic() - started) / (run.step - first)
            logger.info(
                "step %d/%d loss %.3f scale %.1f %.2f s/step %.0f min left", run.step,
                settings.steps, smooth, run.model.logit_scale.exp().item(), seconds,
                seconds * (settings.steps - run.step) / 60)  # fmt: skip
        last = run.step == settings.steps
        if last or run.step % options.save_every == 0:
            run.save(options.output)
        if regions is not None and (
            last or (options.eval_every and run.step % options.eval_every == 0)
        ):
            logger.info("step %d zero-shot %s", run.step, zero_shot(run.model, regions))
    logger.info("done in %.0f s: %s", time.monotonic() - started, options.output)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with cli_errors():
        main()
