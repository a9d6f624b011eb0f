"""One run that adapts CLIP to a shared pass, and its state on disk."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from open_clip_training.adaptation.model import weights_digest
from open_clip_training.common.images import normalise
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
from open_clip_training.regions.images import RegionBatch
from open_clip_training.regions.teacher import crop_loss
from ovseg.modeling.clip import RegionTokens, pixels_of, region_features
from ovseg.modeling.clip.encoder import TEMPERATURE
from ovseg.utils.finite import check_weights_finite, loss_error
from ovseg.utils.io import write_json
from ovseg.utils.write_checkpoint import write_checkpoint


@dataclass(frozen=True)
class RegionSettings:
    """Everything a run depends on besides its CLIP.

    ``train_data``: a data set; ``train``: "mask-queries", "mask-bias" or "visual"; ``teacher``:
    "classes" or "crops"; ``batch``: images a step.
    """

    train_data: str
    train: str
    teacher: str
    steps: int
    batch: int
    warmup: int
    lr: float
    weight_decay: float
    resolution: int
    first_block: int
    augment: bool
    seed: int


@dataclass
class RegionRun:
    """A run that can be saved and continued.

    ``text``: unit features (C, D) of the data set's class names. ``losses``: one a step.
    """

    model: open_clip.CLIP
    model_cfg: Mapping[str, Any]
    text: Tensor
    settings: RegionSettings
    device: torch.device
    step: int = 0
    losses: list[float] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.settings
        self.made_of = {"clip": weights_digest(self.model), "classes": len(self.text)}
        self.model.requires_grad_(False).eval().to(self.device)
        self.text = self.text.to(self.device)
        visual: Any = self.model.visual
        self.tokens: RegionTokens | None = None
        self.teacher: Any = visual
        if settings.teacher == "crops" and settings.train == "visual":
            self.teacher = copy.deepcopy(visual)  # that of the crops stays as it is
        trained: nn.Module = visual.requires_grad_()
        if settings.train != "visual":
            visual.requires_grad_(False)
            self.tokens = RegionTokens(visual, settings.first_block, settings.train)
            trained = self.tokens.to(self.device)
        self.trained = dict(trained.named_parameters())
        matrices = [p for p in self.trained.values() if self._decays(p)]
        others = [p for p in self.trained.values() if not self._decays(p)]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98), eps=1e-6)
        self.rates = base_rates(self.optimizer)

    def _decays(self, parameter: nn.Parameter) -> bool:
        """Of fine-tuning the matrices; what is new for the copies does not."""
        return self.settings.train == "visual" and parameter.ndim >= 2

    def features(self, batch: RegionBatch) -> Tensor:
        """Of the regions of a batch, (B, R, D)."""
        images = normalise(batch.images.to(self.device), *pixels_of(self.model))
        return region_features(
            self.model.visual,
            images,
            batch.covered.to(self.device),
            first_block=self.settings.first_block,
            tokens=self.tokens,
        )

    def advance(self, batch: RegionBatch) -> float:
        """Do one step; returns its loss.

        Raises:
            UserError: the loss is not finite.
        """
        settings = self.settings
        rate = learning_rate(self.step, settings.warmup, settings.steps)
        start_step(self.optimizer, self.rates, rate)
        loss = self._loss(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            way_out = f"give {self._smaller_rate()}, or a longer --warmup"
            raise loss_error({"loss": value}, self.step, settings.lr * rate, way_out, "step")
        loss.backward()
        self.optimizer.step()
        self.step += 1
        self.losses.append(value)
        return value

    def _loss(self, batch: RegionBatch) -> Tensor:
        features = self.features(batch)
        if batch.crops is None:
            return region_loss(features, self.text, batch.labels.to(self.device))
        crops = normalise(batch.crops.to(self.device), *pixels_of(self.model))
        with torch.no_grad():
            taught = self.teacher(crops)
        return crop_loss(features[batch.there.to(self.device)], taught, self.text)

    def _smaller_rate(self) -> str:
        option = "--region-lr" if self.tokens is not None else "--lr"
        return f"a smaller {option} (now {self.settings.lr})"

    @torch.no_grad()
    def right(self, batch: RegionBatch) -> tuple[int, int]:
        """How many of a batch's regions get their class, and how many there are."""
        found = (self.features(batch) @ self.text.T).argmax(dim=-1).cpu()
        known = batch.labels >= 0
        return int((found == batch.labels)[known].sum()), int(known.sum())

    def save(self, output: Path) -> None:
        """Write ``output`` and its neighbours to resume from and to read.

        It is a CLIP where its image tower was trained, and otherwise a small file for
        ``MODEL.CLIP_ADAPTER.SHARED_WEIGHTS``; both in half precision.

        Raises:
            UserError: a weight is not finite in half precision.
        """
        state = half_precision(self.model if self.tokens is None else self.tokens)
        check_weights_finite(state.items(), output, f"give {self._smaller_rate()}")
        if self.tokens is None:
            write_clip(output, state, self.model_cfg, self.step)
        else:
            write_checkpoint(state, output)
        history = {
            "step": self.step,
            "losses": self.losses,
            "checks": self.checks,
            "settings": asdict(self.settings),
        }
        trained = {name: p.detach() for name, p in self.trained.items()}
        progress = {"trained": trained, "optimizer": self.optimizer.state_dict()}
        write_resume(output, {**progress, "history": history, "made_of": self.made_of})
        write_json(history_path(output), history)

    def resume(self, output: Path) -> None:
        """Continue from what :meth:`save` left beside ``output``.

        Raises:
            UserError: nothing is there, or it was made with other settings, data or CLIP.
        """
        saved = read_resume(
            output,
            {**asdict(self.settings), **self.made_of},
            {"batch": "--batch-size", "augment": "augmentation"},
        )
        history = saved["history"]
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(saved["trained"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.losses, self.checks = history["step"], history["losses"], history["checks"]


def region_loss(features: Tensor, text: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of regions, in which every image counts the same.

    Args:
        features: (B, R, D).
        text: (C, D), of unit length.
        labels: int64 (B, R); -1: no region.
    """
    logits = TEMPERATURE * F.normalize(features.float(), dim=-1) @ text.T
    known = labels >= 0
    losses = F.cross_entropy(logits[known], labels[known], reduction="none")
    # every class of an image has one region
    shares = 1 / known.sum(dim=1, keepdim=True).clamp(min=1).expand_as(labels)[known]
    return (losses * shares).sum() / known.any(dim=1).sum().clamp(min=1)
