"""Mask-noun pairs as batches: decoding, the order of the batches, texts, augmentation."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from open_clip_training.adaptation.pairs import ByteRange, StoredPair
from open_clip_training.adaptation.released import FilledBackground
from open_clip_training.common.images import zoom_grid

logger = logging.getLogger(__name__)

# decoded pairs are kept in memory when they all fit into this many bytes
CACHE_BYTES = 2 << 30


@dataclass
class Batch:
    """Pairs as CLIP takes them.

    images: uint8 ``(B, 3, S, S)``, RGB. masks: uint8 ``(B, 1, S, S)``, 1 on the region.
    valid: bool ``(B,)``, False where the files could not be used; such rows take no part.
    """

    images: Tensor
    masks: Tensor
    valid: Tensor


class PairImages(Dataset[Batch]):
    """Decoded pairs, in memory when they are few; indexed by lists of indices."""

    def __init__(
        self, pairs: Sequence[StoredPair], size: tuple[int, int], with_masks: bool
    ) -> None:
        """
        Args:
            pairs: from ``read_pairs``.
            size: height and width of CLIP's input in pixels.
            with_masks: give masks; otherwise those of the batches are 1 everywhere.
        """
        self.pairs, self.size, self.with_masks = pairs, size, with_masks
        self.cached = len(pairs) * 4 * size[0] * size[1] <= CACHE_BYTES
        height, width = size
        count = len(pairs) if self.cached else 0
        self._images = torch.zeros((count, 3, height, width), dtype=torch.uint8)
        self._masks = torch.zeros((count, 1, height, width), dtype=torch.uint8)
        # 0: not yet read, 1: fine, 2: of no use
        self._state = torch.zeros(len(pairs), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, indices: list[int]) -> Batch:
        """The pairs of a list of indices; a process names a file that fails once."""
        if not self.cached:
            decoded = [self._decode(index) for index in indices]
            return Batch(
                torch.stack([image for image, _ in decoded]),
                torch.stack([mask for _, mask in decoded]),
                self._state[indices] == 1,
            )
        for index in indices:
            if self._state[index] == 0:
                self._images[index], self._masks[index] = self._decode(index)
        return Batch(self._images[indices], self._masks[indices], self._state[indices] == 1)

    def _decode(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[index]
        try:
            image, mask = read_crop(pair, self.size, self.with_masks)
        except (OSError, ValueError, cv2.error) as error:
            if self._state[index] == 0:
                logger.warning("left out %r: %s", pair.noun, error)
            self._state[index] = 2
            empty = torch.zeros((4, *self.size), dtype=torch.uint8)
            return empty[:3], empty[3:]
        self._state[index] = 1
        return image, mask


def read_crop(pair: StoredPair, size: tuple[int, int], with_mask: bool) -> tuple[Tensor, Tensor]:
    """A pair's crop and mask at CLIP's size, as those of :mod:`ovseg.modeling.crops`.

    Args:
        pair: whose files are read.
        size: height and width in pixels.
        with_mask: False: the mask is 1 everywhere.

    Returns:
        RGB uint8 ``(3, *size)`` and uint8 ``(1, *size)``, 1 on the region.

    Raises:
        OSError, ValueError, cv2.error: a file cannot be used, or there is no region in the crop.
    """
    image = _decode_image(pair.image, cv2.IMREAD_COLOR)[..., ::-1]
    resized = _resized(image, size)
    if isinstance(pair.mask, FilledBackground):
        region = pair.mask.region(resized)
        if not region.any():
            raise ValueError(f"{pair.image.path} is all of its background's colour")
        return resized, region.byte() if with_mask else torch.ones_like(resized[:1])
    mask = np.full(image.shape[:2], 255, dtype=np.uint8)
    # a masked crop without a region is all background, of one colour: others need no look
    if pair.mask is not None and (with_mask or (image == image[0, 0]).all()):
        found = _decode_image(pair.mask, cv2.IMREAD_GRAYSCALE)
        if found.shape != image.shape[:2]:
            raise ValueError(f"mask {pair.mask.path} is of another size than its image")
        if not found.any():
            raise ValueError(f"mask {pair.mask.path} has no pixel")
        mask = found if with_mask else mask
    pixels = torch.from_numpy(mask > 0)[None, None].float()
    return resized, F.interpolate(pixels, size=size, mode="nearest")[0].byte()


def _resized(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    return F.interpolate(pixels, size=size, mode="bicubic")[0].round().clamp(0, 255).byte()


def _decode_image(place: ByteRange, flags: int) -> np.ndarray:
    data = place.read()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise ValueError(f"{place.path} cannot be read as an image")
    return image


class BatchOrder(Sampler[list[int]]):
    """This process's part of every batch from ``first_step`` on.

    Every epoch is a permutation of its own; what does not fill its last batch is dropped. The
    batches depend on the seed alone, so any number of processes shares the same ones, and a
    resumed run has those that it would have had.
    """

    def __init__(
        self, total: int, batch: int, steps: int, seed: int, *, first_step: int = 0,
        rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        """``rank`` of ``world`` processes takes the ``rank``-th part of every batch."""
        self.total, self.batch, self.steps, self.seed = total, batch, steps, seed
        self.first_step, self.rank, self.world = first_step, rank, world
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return self.steps - self.first_step

    def indices(self, step: int) -> Tensor:
        """All indices of the batch of ``step``, int64 ``(batch,)``."""
        per_epoch = self.total // self.batch
        epoch, place = divmod(step, per_epoch)
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
            self._order = epoch, torch.randperm(self.total, generator=generator)
        return self._order[1][place * self.batch : (place + 1) * self.batch]

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.steps):
            yield self.indices(step).chunk(self.world)[self.rank].tolist()


def noun_texts(
    nouns: Sequence[str], templates: Sequence[str], generator: torch.Generator
) -> tuple[list[str], Tensor]:
    """The distinct nouns of a batch, each in a template of its own.

    Crops of one noun share its template, so that one noun is one text.

    Args:
        nouns: of the B crops.
        templates: ``{}`` in each stands for the noun.
        generator: chooses the templates.

    Returns:
        The texts, and int64 ``(B,)``, which of them is each crop's.
    """
    distinct = sorted(set(nouns))
    places = {noun: place for place, noun in enumerate(distinct)}
    chosen = torch.randint(len(templates), (len(distinct),), generator=generator).tolist()
    texts = [
        templates[template].replace("{}", noun)
        for noun, template in zip(distinct, chosen, strict=True)
    ]
    return texts, torch.tensor([places[noun] for noun in nouns])


def mirror_and_zoom(
    images: Tensor, masks: Tensor, draws: Tensor, mirror: bool = True
) -> tuple[Tensor, Tensor]:
    """Mirror and zoom in a little, mask and image alike.

    Args:
        images: RGB uint8 ``(B, 3, S, S)``.
        masks: uint8 ``(B, 1, S, S)``.
        draws: random numbers ``(B, 4)`` of 0..1.
        mirror: half of them; False: zoom in alone.

    Returns:
        float images 0..255, and float masks, 1 on the region. Between 90 and 100 % of the area
        stay in view, as in open_clip's own training.
    """
    scale = (0.9 + 0.1 * draws[:, 0]).sqrt()
    shift = (2 * draws[:, 2:] - 1) * (1 - scale[:, None])
    mirrored = (draws[:, 1] < 0.5) & mirror
    grid = zoom_grid(scale[:, None].expand(-1, 2), mirrored, shift, images)
    zoomed = F.grid_sample(images.float(), grid, "bilinear", "border", align_corners=False)
    return zoomed, F.grid_sample(masks.float(), grid, "nearest", "border", align_corners=False)
