"""One adaptation run: a step over any number of processes and parts, and its state on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip_train.precision import get_autocast
from torch import Tensor

from open_clip_training.adaptation.batches import Batch, mirror_and_zoom, noun_texts
from open_clip_training.adaptation.model import (
    build_adaptation_optimizer,
    trained_parameters,
    weights_digest,
)
from open_clip_training.adaptation.settings import AdaptationSettings
from open_clip_training.common.contrastive import contrastive_loss, plain_contrastive_loss
from open_clip_training.common.images import CPU_CHUNK, normalise
from open_clip_training.common.processes import Processes
from open_clip_training.common.run_state import (
    base_rates,
    half_precision,
    history_path,
    learning_rate,
    read_resume,
    start_step,
    write_clip,
    write_resume,
)
from ovseg.errors import UserError
from ovseg.modeling.clip import encode_texts, foreground_features, pixels_of
from ovseg.utils.digests import digest
from ovseg.utils.finite import check_weights_finite, loss_error
from ovseg.utils.io import write_json

#: settings that are not called as their option is
_OPTIONS = {"batch": "--batch-size", "augment": "augmentation"}


@dataclass
class AdaptationRun:
    """A training run that can be saved and continued.

    ``parts``: in how many passes a process computes its share of a batch; the result is the same,
    the memory less. ``losses`` holds one loss a step, ``checks`` the zero-shot accuracies.
    """

    model: open_clip.CLIP
    model_cfg: dict[str, Any]
    nouns: Sequence[str]
    settings: AdaptationSettings
    processes: Processes
    parts: int = 1
    step: int = 0
    losses: list[float] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        settings = self.settings
        device = self.processes.device
        # what a run that is resumed must start from again, besides its settings
        self.made_of = {
            "mask_prompt_depth": self.model.visual.mask_prompt_depth,
            "clip": weights_digest(self.model),
            "train_data": digest(["\n".join(self.nouns)]),
        }
        self.model.to(device)
        self.trained = trained_parameters(self.model)
        self.optimizer = build_adaptation_optimizer(
            self.model, settings.lr, settings.weight_decay, settings.prompt_lr
        )
        self.rates = base_rates(self.optimizer)
        self.autocast = get_autocast(settings.precision, device_type=device.type)
        # without "amp" it passes everything through
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "amp")
        self.drops = settings.background == "drop"
        self.uses_masks = self.drops or self.model.visual.mask_prompt_depth > 0

    def advance(self, batch: Batch, indices: Tensor) -> float:
        """Do one step.

        Args:
            batch: this process's part.
            indices: of all pairs in the batch, over all processes.

        Returns:
            The loss of the whole batch, the same in every process.

        Raises:
            UserError: it is not finite, or no pair can be used.
        """
        settings = self.settings
        rate = learning_rate(self.step, settings.warmup, settings.steps)
        start_step(self.optimizer, self.rates, rate)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.step)
        texts, text_ids = self._texts(indices, generator)
        inputs = self._inputs(batch, len(indices), generator)
        loss = self._backward(inputs, batch.valid, indices, texts, text_ids)
        # in half precision a step may overflow: the scaler skips it and halves its scale
        if not math.isfinite(loss) and (
            not self.scaler.is_enabled() or self.scaler.get_scale() < 1
        ):
            way_out = f"give {self._smaller_rate()}, a longer --warmup or another --precision"
            rate = max(group["lr"] for group in self.optimizer.param_groups)
            raise loss_error({"loss": loss}, self.step, rate, way_out, unit="step")
        for parameter in self.trained.values():
            assert parameter.grad is not None
            self.processes.add_up(parameter.grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.losses.append(loss)
        return loss

    def _smaller_rate(self) -> str:
        lr, prompt_lr = self.settings.lr, self.settings.prompt_lr
        return f"a smaller --lr or --prompt-lr (now {lr} and {prompt_lr})"

    def _texts(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features of the batch's distinct texts, and which of them is each crop's."""
        texts, text_ids = noun_texts(
            [self.nouns[index] for index in indices.tolist()], self.settings.templates, generator
        )
        # not kept from step to step: features depend, in their last bits, on their neighbours in
        # the batch, and a resumed run has to see the same ones; it is a few hundredths of a step
        with torch.no_grad(), self.autocast():
            features = encode_texts(self.model, texts)
        return features, text_ids.to(features.device)

    def _inputs(
        self, batch: Batch, total: int, generator: torch.Generator
    ) -> list[tuple[Tensor, Tensor | None]]:
        """The model's inputs, in as many parts as one pass each takes."""
        device = self.processes.device
        images, masks = batch.images.to(device), batch.masks.to(device)
        if self.settings.augment:
            # drawn for the whole batch, so that the number of processes makes no difference
            draws = self.processes.own_part(torch.rand((total, 4), generator=generator))
            images, masks = mirror_and_zoom(images, masks, draws, self.settings.mirror is not False)
        images = normalise(images, *pixels_of(self.model))
        parts = zip(images.chunk(self.parts), masks.chunk(self.parts), strict=True)
        return [(image, mask if self.uses_masks else None) for image, mask in parts]

    def _features(self, images: Tensor, masks: Tensor | None) -> Tensor:
        size = CPU_CHUNK if images.device.type == "cpu" else len(images)
        mask_parts = [None] * math.ceil(len(images) / size) if masks is None else masks.split(size)
        with self.autocast():
            features = [
                self._encode(image, mask)
                for image, mask in zip(images.split(size), mask_parts, strict=True)
            ]
        return torch.cat(features).float()

    def _encode(self, images: Tensor, masks: Tensor | None) -> Tensor:
        if self.drops and masks is not None:
            return foreground_features(self.model.visual, images, masks)
        features: Tensor = self.model.visual(images, masks)
        return features

    def _backward(
        self, inputs: list[tuple[Tensor, Tensor | None]], valid: Tensor, indices: Tensor,
        texts: Tensor, text_ids: Tensor,
    ) -> float:  # fmt: skip
        """Leave the gradients of this process's part; returns the loss.

        The loss needs the features of all. Its gradient by them is found first; then each part
        passes its own rows of that gradient on, computing its features again if there are several
        parts. This is exact, unlike the sum of the parts' own losses.
        """
        several = len(inputs) > 1
        with torch.set_grad_enabled(not several):
            own = [self._features(*part) for part in inputs]
        everyone = self.processes.gather(torch.cat(own).detach()).requires_grad_()
        usable = self.processes.gather(valid.to(everyone.device).to(torch.uint8)) > 0
        self.left_out.update(indices[~usable.cpu()].tolist())
        if not usable.any():
            raise UserError("--train-data: none of the pairs of a batch can be used")
        rule = plain_contrastive_loss if self.settings.plain_loss else contrastive_loss
        used, text_ids = torch.unique(text_ids[usable], return_inverse=True)
        loss = rule(everyone[usable], texts[used], text_ids, self.model.logit_scale.exp())
        loss.backward()
        assert everyone.grad is not None
        gradients = self.processes.own_part(everyone.grad) * self.scaler.scale(
            torch.ones((), device=everyone.device)
        )
        for place, gradient in enumerate(gradients.chunk(len(inputs))):
            features = self._features(*inputs[place]) if several else own[place]
            features.backward(gradient)
        return float(loss.detach())

    def save(self, output: Path) -> None:
        """Write ``output`` (half precision, for use) and its neighbours to resume from and to read.

        In the process of rank 0 alone.

        Raises:
            UserError: a weight is not finite in half precision.
        """
        if self.processes.rank:
            return
        state = half_precision(self.model)
        trained = ((name, state[name]) for name in self.trained)
        check_weights_finite(trained, output, f"give {self._smaller_rate()}")
        write_clip(output, state, self.model_cfg, self.step)
        history = {
            "step": self.step,
            "losses": self.losses,
            "checks": self.checks,
            "pairs": len(self.nouns),
            "nouns": len(set(self.nouns)),
            "pairs_left_out": len(self.left_out),
            "settings": asdict(self.settings),
        }
        write_resume(
            output,
            {
                "trained": {name: p.detach() for name, p in self.trained.items()},
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "history": history,
                "made_of": self.made_of,
                "left_out": sorted(self.left_out),
            },
        )
        # JSON has no NaN, which a step that the scaler has skipped may leave
        losses = [loss if math.isfinite(loss) else None for loss in self.losses]
        write_json(history_path(output), {**history, "losses": losses})

    def resume(self, output: Path) -> None:
        """Continue from what :meth:`save` left beside ``output``.

        Raises:
            UserError: nothing is there, or it was made with other settings, data or CLIP.
        """
        saved = read_resume(output, {**asdict(self.settings), **self.made_of}, _OPTIONS)
        history = saved["history"]
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(saved["trained"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.step, self.losses, self.checks = history["step"], history["losses"], history["checks"]
        self.left_out = set(saved["left_out"])
