"""Zero-shot accuracy of a CLIP: crops, classified among class names."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor

from open_clip_training.common.images import normalise
from open_clip_training.common.processes import Processes
from open_clip_training.common.regions import percent
from ovseg.errors import UserError
from ovseg.modeling.clip import (
    ClipEncoder,
    encoder_of,
    foreground_features,
    pixels_of,
    text_templates,
    word_features,
)

logger = logging.getLogger(__name__)

Record = TypeVar("Record")


@dataclass
class Sample:
    """What goes through CLIP together.

    images: ``(N, 3, S, S)``, RGB, 0..255. masks: ``(N, 1, S, S)``, above 0 on the region.
    labels: int64 ``(N,)``. left_out: images that could not be used.
    """

    images: Tensor
    masks: Tensor
    labels: Tensor
    left_out: int = 0


class ZeroShotCheck(ABC, Generic[Record]):
    """Crops, classified among the names of all classes; texts are of the 14 ViLD templates."""

    def __init__(
        self,
        name: str,
        records: Sequence[Record],
        names: Sequence[str],
        groups: Mapping[str, Sequence[int]],
    ) -> None:
        """
        Args:
            name: of the data.
            records: what :meth:`read` takes, one after the other.
            names: of the classes.
            groups: the labels of each group of classes that counts by itself, maybe none.
        """
        self.name, self.records, self.names, self.groups = name, records, list(names), groups
        #: leave background patches out
        self.drop_background = False

    @abstractmethod
    def read(self, record: Record, encoder: ClipEncoder) -> Sample:
        """The crops of a record at CLIP's size, their background of its mean colour.

        Raises:
            UserError: it cannot be used; it is named and counted.
        """

    @torch.no_grad()
    def __call__(self, model: CLIP, processes: Processes) -> dict[str, float]:
        """Accuracies in percent.

        Returns:
            ``accuracy`` over all regions, ``accuracy_class_mean`` over the classes that occur,
            ``accuracy_<group>`` over the regions of each group of classes, the number of
            ``regions``, and how many images were ``left_out`` since they cannot be used.
        """
        text = word_features(model, self.names, text_templates("vild", []))
        # rows: regions, hits
        counts = torch.zeros(2, len(self.names), dtype=torch.int64, device=processes.device)
        left_out = torch.zeros(1, dtype=torch.int64, device=processes.device)
        encoder = encoder_of(model)
        for record in self.records[processes.rank :: processes.world]:
            try:
                sample = self.read(record, encoder)
            except UserError as error:
                logger.warning("%s: left out an image: %s", self.name, error)
                left_out += 1
                continue
            left_out += sample.left_out
            if len(sample.labels) == 0:
                continue
            hits = self._hits(model, text, sample, processes.device)
            both = torch.stack([torch.ones_like(sample.labels), hits.long()])
            counts.index_add_(1, sample.labels.to(counts.device), both.to(counts.device))
        return self._result(processes.add_up(counts).cpu(), int(processes.add_up(left_out)))

    def _hits(self, model: CLIP, text: Tensor, sample: Sample, device: torch.device) -> Tensor:
        """Which crops get their own class: bool ``(N,)``."""
        images, masks = normalise(sample.images.to(device), *pixels_of(model)), sample.masks
        if self.drop_background:
            features = foreground_features(model.visual, images, masks.to(device))
        else:
            prompted = model.visual.mask_prompt_depth > 0
            features = model.visual(images, masks.to(device) if prompted else None)
        return (F.normalize(features, dim=-1) @ text.T).argmax(dim=-1).cpu() == sample.labels

    def _result(self, counts: Tensor, left_out: int) -> dict[str, float]:
        regions, hits = counts
        occurring = regions > 0
        if not occurring.any():
            raise UserError(f"--eval-data {self.name}: none of its images has a region to check")
        result = {
            "accuracy": percent(hits.sum() / regions.sum(), 2),
            "accuracy_class_mean": percent((hits[occurring] / regions[occurring]).mean(), 2),
        }
        for group, members in self.groups.items():
            if regions[members].any():
                result[f"accuracy_{group}"] = percent(
                    hits[members].sum() / regions[members].sum(), 2
                )
        return {**result, "regions": int(regions.sum()), "left_out": left_out}
