"""From a command line to a pretrained CLIP: load, train, check, save."""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import open_clip

from open_clip_training.common.stepping import stepped
from open_clip_training.pretraining.captioned_images import load_captioned_images
from open_clip_training.pretraining.run import PretrainingRun, tokens_in_use
from open_clip_training.pretraining.settings import PretrainingSettings
from open_clip_training.pretraining.zero_shot import load_regions, zero_shot
from ovseg.data.splits import data_root
from ovseg.engine import stopping
from ovseg.errors import UserError
from ovseg.utils.io import read_json

logger = logging.getLogger("pretrain")


@stopping.handled()
def pretrain(options: argparse.Namespace) -> None:
    """Pretrain a CLIP as the command line says.

    Raises:
        UserError: an argument or the data cannot be used.
    """
    settings = replace(
        PretrainingSettings(),
        steps=options.steps,
        batch=options.batch_size,
        seed=options.seed,
        patch_dropout=options.patch_dropout,
    )
    root = options.root or data_root() / "stickerscenes"
    config = read_model_config(options.model_config)
    size = config["vision_cfg"]["image_size"]
    tokenizer = open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
    data = load_captioned_images(
        options.train_data or root / "clip_train.csv",
        size,
        tokenizer,
        partial(tokens_in_use, tokenizer),
    )
    if len(data.images) < settings.batch:
        raise UserError(f"--batch-size {settings.batch} is more than the {len(data.images)} images")
    run = PretrainingRun(data, config, settings)
    if options.resume:
        run.resume(options.output)
    regions = None
    if options.eval_pictures:
        regions = load_regions(root, "dev", size, options.eval_pictures)
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    logger.info("%d images, %d tokens, %.2f M parameters, %s", len(data.images),
                len(data.token_ids), parameters / 1e6, settings)  # fmt: skip

    def is_checked() -> bool:
        due = options.eval_every and run.step % options.eval_every == 0
        return regions is not None and (run.step == settings.steps or due)

    def check() -> None:
        assert regions is not None
        with stopping.at_once():  # the run is saved already
            logger.info("step %d zero-shot %s", run.step, zero_shot(run.model, regions))

    started, smooth = time.monotonic(), None
    if run.step and is_checked():
        check()  # it may be the one during which the run was stopped
    for bar, _ in stepped(run, range(run.step, settings.steps), options.output, options.save_every):
        loss = run.advance()
        smooth = loss if smooth is None else 0.95 * smooth + 0.05 * loss
        bar.set_postfix(loss=f"{smooth:.3f}", scale=f"{run.model.logit_scale.exp().item():.1f}")
        if is_checked():
            run.save(options.output)
            check()
    logger.info("done in %.0f s: %s", time.monotonic() - started, options.output)


def read_model_config(path: Path | None) -> dict[str, Any]:
    """An architecture of open_clip's form; None: the embedded CLIP's.

    Raises:
        UserError: the file is missing or broken.
    """
    if path is None:
        path = Path(str(files("ovseg.modeling.clip") / "model_configs" / "ovseg-tiny-clip.json"))
    return read_json(path, dict, "give a model config of open_clip's form as --model-config")
