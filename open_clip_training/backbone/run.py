"""One run that pretrains a backbone, and its state on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from open_clip_training.common.run_state import (
    base_rates,
    half_precision,
    history_path,
    learning_rate,
    read_resume,
    start_step,
    write_resume,
)
from open_clip_training.regions.images import RegionBatch
from ovseg.utils.finite import check_weights_finite, loss_error
from ovseg.utils.io import write_json
from ovseg.utils.write_checkpoint import write_checkpoint

# CLIP's own 100 makes the loss of a network that knows nothing as steep as a cliff
TEMPERATURE = 30.0


@dataclass(frozen=True)
class BackboneSettings:
    """Everything a run depends on besides its data and its model; ``batch``: images a step."""

    steps: int
    batch: int
    warmup: int
    lr: float
    weight_decay: float
    size: int
    seed: int


class RegionClassifier(nn.Module):
    """Backbone -> mean over each region -> CLIP's text space."""

    mean: Tensor
    std: Tensor
    text: Tensor

    def __init__(
        self, backbone: nn.Module, feature: str, channels: int, text: Tensor, mean: Tensor,
        std: Tensor, *, bgr: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            backbone: gives maps by name.
            feature: the map that is pretrained, and with it all that it is made of.
            channels: of that map.
            text: unit features (C, D) of the classes.
            mean, std: of pixels in 0..255, (3, 1, 1), in the backbone's order of colours.
            bgr: the backbone wants blue first.
        """
        super().__init__()
        self.backbone, self.feature, self.bgr = backbone, feature, bgr
        self.project = nn.Linear(channels, text.shape[1])
        for name, value in (("text", text), ("mean", mean), ("std", std)):
            self.register_buffer(name, value.detach().clone(), persistent=False)

    def forward(self, batch: RegionBatch) -> Tensor:
        """Logits (B, R, C) of the regions of a batch."""
        images = batch.images.to(self.mean.device).float()
        images = ((images.flip(1) if self.bgr else images) - self.mean) / self.std
        # the layout in which pooling is several times faster
        maps = self.backbone(images.contiguous(memory_format=torch.channels_last))[self.feature]
        means = region_means(maps.float(), batch.covered.to(maps.device))
        embeddings = F.normalize(self.project(means), dim=-1)
        return TEMPERATURE * embeddings @ self.text.T


def region_means(maps: Tensor, covered: Tensor) -> Tensor:
    """The mean of a map (B, C, h, w) over the places (B, R, h w) of each region: (B, R, C)."""
    weights = covered.float()
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)
    return weights @ maps.flatten(2).transpose(1, 2)


@dataclass
class BackboneRun:
    """A run that can be saved and continued.

    ``made_of``: what else a run depends on, to be compared when it goes on.
    """

    model: RegionClassifier
    settings: BackboneSettings
    made_of: Mapping[str, Any]
    step: int = 0
    losses: list[float] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model.requires_grad_().train()
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": self.settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.settings.lr)
        self.rates = base_rates(self.optimizer)

    def advance(self, batch: RegionBatch) -> float:
        """Do one step; returns its loss, the mean cross entropy of the batch's regions.

        Raises:
            UserError: it is not finite; the weights are those of the step before.
        """
        # whatever the backbone draws (drop path) depends on the step alone, so that a run can go on
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step + 1)
        rate = learning_rate(self.step, self.settings.warmup, self.settings.steps)
        start_step(self.optimizer, self.rates, rate)
        logits, labels = self.model(batch), batch.labels.to(self.model.mean.device)
        known = labels >= 0
        # 0 for a batch without a region
        loss = F.cross_entropy(logits[known], labels[known], reduction="sum") / known.sum().clamp(1)
        value = float(loss.detach())
        if not math.isfinite(value):
            way_out = "go on with --resume from the last file, or start anew with a smaller --lr"
            raise loss_error({"loss": value}, self.step, rate * self.settings.lr, way_out, "step")
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.losses.append(value)
        return value

    @torch.no_grad()
    def right(self, batch: RegionBatch) -> tuple[Tensor, Tensor]:
        """Of a batch's regions: their labels, int64 (N,), and whether they get them, bool (N,)."""
        training = self.model.training
        found = self.model.eval()(batch).argmax(dim=-1).cpu()
        self.model.train(training)
        known = batch.labels >= 0
        return batch.labels[known], (found == batch.labels)[known]

    def save(self, output: Path) -> None:
        """Write ``output``, a backbone for ``MODEL.WEIGHTS`` in half precision, and its neighbours
        to resume from and to read.

        Raises:
            UserError: a weight is not finite; the files stay as they were.
        """
        check_weights_finite(
            self.model.named_parameters(), output, "start anew with a smaller --lr"
        )
        weights = half_precision(self.model.backbone)
        write_checkpoint({"model": {f"backbone.{k}": v for k, v in weights.items()}}, output)
        history = {
            "step": self.step,
            "losses": self.losses,
            "checks": self.checks,
            "settings": asdict(self.settings),
        }
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        write_resume(output, {**state, "history": history, "made_of": dict(self.made_of)})
        write_json(history_path(output), history)

    def resume(self, output: Path) -> None:
        """Continue from what :meth:`save` left beside ``output``.

        Raises:
            UserError: nothing is there, or it was made with other settings, data or model.
        """
        present = {**asdict(self.settings), **self.made_of}
        names = {"batch": "--batch-size", **{name: name for name in self.made_of if " " in name}}
        saved = read_resume(output, present, names)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        history = saved["history"]
        self.step, self.losses, self.checks = history["step"], history["losses"], history["checks"]
