"""What is learned of texts while CLIP itself stays frozen.

Text prompts are vectors before a word (SimBaseline, ECCV 2022); a template map weighs the cosines
with a word's templates (MaskCLIP++, 2024). CLIP's image tower does not change, so every crop is
encoded once. Each step then classifies some of them among all nouns.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from open_clip_training.adaptation.batches import BatchOrder, PairImages
from open_clip_training.adaptation.model import load_clip, weights_digest
from open_clip_training.adaptation.pairs import read_given_pairs
from open_clip_training.common.images import CPU_CHUNK, normalise
from open_clip_training.common.run_state import (
    history_path,
    learning_rate,
    read_resume,
    seed_everything,
    start_step,
    write_resume,
)
from open_clip_training.common.stepping import stepped
from ovseg.errors import UserError
from ovseg.modeling.clip import (
    TemplateMap,
    check_promptable,
    pixels_of,
    prompted_features,
    template_features,
    text_templates,
)
from ovseg.modeling.clip.encoder import TEMPERATURE
from ovseg.modeling.clip.learned_prompts import ENTRY as PROMPTS
from ovseg.modeling.clip.template_map import ENTRY as WEIGHTS
from ovseg.modeling.clip.template_map import TEMPLATES
from ovseg.utils.digests import digest
from ovseg.utils.finite import loss_error
from ovseg.utils.io import write_json
from ovseg.utils.write_checkpoint import write_checkpoint

logger = logging.getLogger("train")
SAVE_EVERY = 100  # steps


@dataclass(frozen=True)
class PromptSettings:
    """Everything a run depends on besides its data and its CLIP."""

    train: str
    prompts: int
    steps: int
    batch: int
    warmup: int
    prompt_lr: float
    seed: int
    templates: tuple[str, ...] = ()


def prompt_loss(features: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of crops among all nouns.

    Args:
        features: of crops, (B, D), of any length.
        texts: what the nouns' scores are the dot products with, (C, D).
        labels: int64 (B,), the noun of each crop.
    """
    return F.cross_entropy(TEMPERATURE * F.normalize(features, dim=-1) @ texts.T, labels)


@dataclass
class PromptRun:
    """A run that can be saved and continued; ``features`` (P, D) are those of all crops."""

    model: open_clip.CLIP
    features: Tensor
    labels: Tensor
    nouns: Sequence[str]
    settings: PromptSettings
    step: int = 0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.settings
        self.templated: Tensor | None = None
        if settings.train == "template-map":
            with torch.no_grad():
                self.templated = template_features(self.model, self.nouns, settings.templates)
            start = torch.full((len(settings.templates),), 1 / len(settings.templates))
        else:
            width = self.model.positional_embedding.shape[1]
            generator = torch.Generator().manual_seed(settings.seed)
            start = 0.02 * torch.randn((settings.prompts, width), generator=generator)
        self.learned = start.to(self.features.device).requires_grad_()
        self.optimizer = torch.optim.SGD([self.learned], lr=settings.prompt_lr, momentum=0.9)
        self.made_of = {
            "clip": weights_digest(self.model),
            "nouns": digest(["\n".join(self.nouns)]),
        }

    def texts(self) -> Tensor:
        """What the nouns' scores are the dot products with, (C, D)."""
        if self.templated is None:
            return prompted_features(self.model, self.learned, self.nouns)
        return TemplateMap(self.learned).mix(self.nouns, self.templated)

    def advance(self, indices: Tensor) -> float:
        """Do one step with some crops; returns its loss.

        Raises:
            UserError: it is not finite.
        """
        settings = self.settings
        rate = learning_rate(self.step, settings.warmup, settings.steps)
        start_step(self.optimizer, [settings.prompt_lr], rate)
        loss = prompt_loss(self.features[indices], self.texts(), self.labels[indices])
        value = float(loss.detach())
        if not math.isfinite(value):
            way_out = f"give a smaller --prompt-lr (now {settings.prompt_lr})"
            raise loss_error({"loss": value}, self.step, settings.prompt_lr * rate, way_out, "step")
        loss.backward()
        self.optimizer.step()
        self.step += 1
        self.losses.append(value)
        return value

    def save(self, output: Path) -> None:
        """Write ``output`` and its neighbours to resume from and to read."""
        learned = self.learned.detach().cpu()
        if self.templated is None:
            write_checkpoint({PROMPTS: learned}, output)
        else:
            content = {WEIGHTS: learned, TEMPLATES: list(self.settings.templates)}
            write_checkpoint(content, output)
        history = {"step": self.step, "losses": self.losses, "settings": asdict(self.settings)}
        progress = {"learned": learned, "optimizer": self.optimizer.state_dict()}
        write_resume(output, {**progress, "history": history, "made_of": self.made_of})
        write_json(history_path(output), history)

    def resume(self, output: Path) -> None:
        """Continue from what :meth:`save` left beside ``output``.

        Raises:
            UserError: nothing is there, or it was made with other settings, data or CLIP.
        """
        present = {**asdict(self.settings), **self.made_of}
        saved = read_resume(output, present, {"batch": "--batch-size"})
        with torch.no_grad():
            self.learned.copy_(saved["learned"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.losses = saved["history"]["step"], saved["history"]["losses"]


@torch.no_grad()
def crop_features(model: open_clip.CLIP, images: PairImages) -> tuple[Tensor, Tensor]:
    """Features (P, D) of all crops that can be used, and their places, int64 (P,)."""
    device, with_masks = model.visual.conv1.weight.device, model.visual.mask_prompt_depth > 0
    features, used = [], []
    places = torch.arange(len(images))
    for part in tqdm(places.split(CPU_CHUNK), desc="crops", disable=None):
        batch = images[part.tolist()]
        if not batch.valid.any():
            continue
        pixels = normalise(batch.images[batch.valid].to(device), *pixels_of(model))
        masks = batch.masks[batch.valid].to(device) if with_masks else None
        features.append(model.visual(pixels, masks))
        used.append(part[batch.valid])
    if not used:
        return torch.empty(0), places[:0]
    return torch.cat(features), torch.cat(used)


def learn_prompts(options: argparse.Namespace, device: torch.device) -> None:
    """Learn text prompts or a template map as the command line says, or go on with it.

    Raises:
        UserError: an argument or the data cannot be used.
    """
    seed_everything(options.seed)
    depth = options.mask_prompt_depth
    model, _ = load_clip(options.clip, options.pretrained, depth, prompts_train=False)
    if options.train == "text-prompts":
        _check_prompts(model, options)
    model.requires_grad_(False).eval().to(device)
    with_masks = model.visual.mask_prompt_depth > 0
    pairs = read_given_pairs(options, with_masks)
    features, used = crop_features(model, PairImages(pairs, model.visual.image_size, with_masks))
    settings = frozen_settings(options, len(used))
    nouns = sorted({pair.noun for pair in pairs})
    place_of = {noun: place for place, noun in enumerate(nouns)}
    labels = torch.tensor([place_of[pairs[place].noun] for place in used.tolist()], device=device)
    run = PromptRun(model, features, labels, nouns, settings)
    if options.resume:
        run.resume(options.output)
    logger.info("%d crops of %d nouns; %s: %d numbers train, %d steps of %d crops",
                len(used), len(nouns), settings.train, run.learned.numel(), settings.steps,
                settings.batch)  # fmt: skip
    train(run, options.output)


def train(run: PromptRun, output: Path) -> None:
    """Take the run to its last step, and save it now and then."""
    settings = run.settings
    order = BatchOrder(len(run.features), settings.batch, settings.steps, settings.seed)
    for bar, step in stepped(run, range(run.step, settings.steps), output, SAVE_EVERY):
        bar.set_postfix(loss=f"{run.advance(order.indices(step)):.3f}")
    key = "TEMPLATE_MAP" if run.templated is not None else "PROMPT_CHECKPOINT"
    logger.info("for MODEL.CLIP_ADAPTER.%s: %s", key, output)


def frozen_settings(options: argparse.Namespace, crops: int) -> PromptSettings:
    """The settings of a run, the defaults filled in.

    Raises:
        UserError: they do not fit the number of crops.
    """
    if not crops:
        raise UserError("--train-data: none of the pairs can be used; the log says why")
    batch = min(256, crops) if options.batch_size is None else options.batch_size
    if batch > crops:
        raise UserError(f"--batch-size {batch} is more than the {crops} pairs; give a smaller one")
    steps = options.steps or options.epochs * (crops // batch)
    mapped = options.train == "template-map"
    return PromptSettings(
        train=options.train,
        prompts=0 if mapped else options.prompts,
        steps=steps,
        batch=batch,
        warmup=min(options.warmup, steps // 10),
        prompt_lr=options.prompt_lr,
        seed=options.seed,
        templates=text_templates("vild", []) if mapped else (),
    )


def _check_prompts(model: open_clip.CLIP, options: argparse.Namespace) -> None:
    check_promptable(model, f"--clip {options.clip!r}")
    most = model.context_length // 2
    if options.prompts > most:
        raise UserError(
            f"--prompts {options.prompts} leave no place for words; give at most {most}"
        )
