"""Images with their true regions, as a shared pass sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from open_clip_training.common.regions import MIN_PIXELS, region_sizes
from open_clip_training.regions.teacher import like_proposals, teaching_crops
from ovseg.data.datasets import dataset_classes, load_dataset
from ovseg.data.label_maps import matching_truth
from ovseg.data.own.registration import register_custom
from ovseg.modeling.clip.shared_pass import covered_patches
from ovseg.utils.images import read_image

#: of the shorter side, what a square cut out of an image measures at least
LEAST_SHARE = 0.6


@dataclass
class RegionBatch:
    """Images and their regions, of which the images have up to R.

    Attributes:
        images: uint8 (B, 3, S, S), RGB.
        covered: bool (B, R, P), the patches of each region; rows beyond an image's regions cover
            the first patch.
        labels: int64 (B, R), the regions' classes; -1 for those without one and beyond an image's
            regions.
        there: bool (B, R); False beyond an image's regions.
        crops: of the regions that are there, float32 (N, 3, h, w), RGB, 0..255; None without a
            teacher.
    """

    images: Tensor
    covered: Tensor
    labels: Tensor
    there: Tensor
    crops: Tensor | None = None


@dataclass(frozen=True)
class CropSettings:
    """How regions are cut for a teacher: size of CLIP's input, mean of its pixels (0..1)."""

    size: tuple[int, int]
    mean: tuple[float, ...]


@dataclass
class _ImageRegions:
    """A row of a batch, with as many regions as the image has."""

    image: Tensor
    covered: Tensor
    labels: Tensor
    crops: Tensor | None


class RegionImages(Dataset[RegionBatch]):
    """A registered data set, indexed by lists of (image, seed)."""

    def __init__(
        self, name: str, size: int, patch: int, augment: bool, crops: CropSettings | None = None
    ) -> None:
        """
        Args:
            name: a registered data set, or the yaml file of one's own.
            size: side in pixels that images are seen at, a multiple of ``patch``.
            patch: side of CLIP's patches.
            augment: cut out a random square and mirror half of them; False: the middle square.
            crops: cut the regions out too, also those without a class; with ``augment`` most masks
                are changed to be like proposals.

        Raises:
            UserError: there is no such data set, or its files are missing.
        """
        if name.endswith((".yaml", ".yml")):
            name = register_custom([name])[0]
        self.records: list[dict[str, Any]] = load_dataset(name)
        self.names = dataset_classes([name])
        self.size, self.grid, self.augment = size, (size // patch, size // patch), augment
        self.crops = crops

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, wanted: Sequence[tuple[int, int]]) -> RegionBatch:
        """The images of a batch, each with the seed of its cut."""
        parts = [self._read(index, np.random.default_rng(seed)) for index, seed in wanted]
        most = max(1, *(len(part.labels) for part in parts))
        places = self.grid[0] * self.grid[1]
        covered = torch.zeros(len(parts), most, places, dtype=torch.bool)
        covered[:, :, 0] = True
        labels = torch.full((len(parts), most), -1)
        there = torch.zeros(len(parts), most, dtype=torch.bool)
        for row, part in enumerate(parts):
            count = len(part.labels)
            covered[row, :count], labels[row, :count] = part.covered, part.labels
            there[row, :count] = True
        crops = [part.crops for part in parts if part.crops is not None]
        return RegionBatch(
            torch.stack([part.image for part in parts]), covered, labels, there,
            torch.cat(crops) if crops else None,
        )  # fmt: skip

    def _read(self, index: int, rng: np.random.Generator) -> _ImageRegions:
        record = self.records[index]
        image = read_image(record["file_name"])
        truth = matching_truth(record, image.shape[:2]).astype(np.int32)
        top, left, side = self._square(truth.shape, rng)
        window = np.s_[top : top + side, left : left + side]
        image, truth = image[window], truth[window]
        if self.augment and rng.random() < 0.5:
            image, truth = image[:, ::-1], truth[:, ::-1]
        image = np.ascontiguousarray(image)
        chosen = np.array(
            [
                label
                for label, pixels in region_sizes(truth).items()
                if pixels >= MIN_PIXELS and (self.crops is not None or self._has_class(label))
            ],
            np.int32,
        )
        masks, crops = truth == chosen[:, None, None], None
        if self.crops is not None:
            masks = like_proposals(masks, rng) if self.augment else masks
            crops = teaching_crops(image, torch.from_numpy(masks), **vars(self.crops))
        size = (self.size, self.size)
        small = torch.from_numpy(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        covered = covered_patches(torch.from_numpy(masks), self.grid)
        labels = [int(label) if self._has_class(label) else -1 for label in chosen]
        return _ImageRegions(small.permute(2, 0, 1), covered, torch.tensor(labels).long(), crops)

    def _has_class(self, label: int) -> bool:
        return 0 <= label < len(self.names)

    def _square(self, shape: Sequence[int], rng: np.random.Generator) -> tuple[int, int, int]:
        """Top, left and side of what is cut out."""
        side = min(shape)
        if not self.augment:
            return (shape[0] - side) // 2, (shape[1] - side) // 2, side
        side = max(1, round(side * rng.uniform(LEAST_SHARE, 1)))
        return int(rng.integers(shape[0] - side + 1)), int(rng.integers(shape[1] - side + 1)), side


def batches(
    images: int, batch: int, steps: int, seed: int, first_step: int = 0
) -> Iterator[list[tuple[int, int]]]:
    """The batches from ``first_step`` on: which images, and the seed of each cut.

    Every epoch is a permutation of its own; what does not fill its last batch is dropped. They
    depend on the seed alone, so a resumed run has those that it would have had.
    """
    per_epoch = images // batch
    permuted, order = -1, np.empty(0, np.int64)
    for step in range(first_step, steps):
        epoch, place = divmod(step, per_epoch)
        if epoch != permuted:
            permuted, order = epoch, np.random.default_rng((seed, epoch)).permutation(images)
        chosen = order[place * batch : (place + 1) * batch].tolist()
        yield [(index, hash((seed, step, row)) % 2**32) for row, index in enumerate(chosen)]
