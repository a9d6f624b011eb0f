"""Several looks at an image in place of one: test-time augmentation and the sliding window.

Every look is segmented by itself, and the scores are averaged: over the sizes and mirror images of
``TEST.AUG``, at each pixel over the tiles of ``TEST.SLIDING_WINDOW`` that show it, and over both
when both are on. All that is kept of a look is its masks and their classes, so memory grows with
looks x proposals x their pixels and not with the number of classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ovseg.data.mapper import resize_short_side
from ovseg.errors import UserError
from ovseg.modeling import OVSeg
from ovseg.structures import PartialScores


def for_inference(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The model as ``TEST.AUG`` and ``TEST.SLIDING_WINDOW`` want it used; itself if both are off.

    Args:
        cfg: checked already.
        model: :class:`OVSeg`, maybe inside ``DistributedDataParallel``.
    """
    if not (cfg.TEST.AUG.ENABLED or cfg.TEST.SLIDING_WINDOW):
        return model
    plain = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(plain, OVSeg)
    return MultiViewSegmenter(
        plain,
        sizes=cfg.TEST.AUG.MIN_SIZES if cfg.TEST.AUG.ENABLED else (),
        max_size=cfg.TEST.AUG.MAX_SIZE,
        flip=cfg.TEST.AUG.ENABLED and cfg.TEST.AUG.FLIP,
        tile=cfg.TEST.SLIDING_TILE_SIZE if cfg.TEST.SLIDING_WINDOW else None,
        overlap=cfg.TEST.SLIDING_OVERLAP,
    )


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along an axis, first to last.

    The step is ``tile * (1 - overlap)``, rounded up; the last tile is moved inwards to end with the
    axis. An axis no longer than a tile has one.

    Args:
        length, tile: in pixels.
        overlap: share of a tile that the next one covers again, 0..1 exclusive.
    """
    step = max(1, math.ceil(tile * (1 - overlap) - 1e-6))
    count = max(math.ceil((length - tile) / step), 0) + 1
    return [max(min(index * step, length - tile), 0) for index in range(count)]


class MultiViewSegmenter(nn.Module):
    """Takes and gives what :class:`OVSeg` does in inference, but looks several times."""

    def __init__(
        self,
        model: OVSeg,
        *,
        sizes: Sequence[int] = (),
        max_size: int = 0,
        flip: bool = False,
        tile: int | None = None,
        overlap: float = 0.0,
    ) -> None:
        """
        Args:
            model: sees every look.
            sizes: lengths in pixels of the shorter side that the image is resized to, each a look;
                none: the image as it is given.
            max_size: of the longer side after resizing, in pixels; read when there are sizes.
            flip: look at the mirror image too.
            tile: side in pixels of the square tiles that each look is cut into; None: not cut.
            overlap: see :func:`tile_starts`.
        """
        super().__init__()
        self.model = model
        self.sizes = list(sizes)
        self.max_size = max_size
        self.flip = flip
        self.tile = tile
        self.overlap = overlap
        # who evaluates puts the mode back as it was
        self.train(model.training)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """Segment a batch, image after image; see :meth:`OVSeg.forward`.

        With ``sizes`` the ``image`` should be the original, so that nothing is resized twice.
        """
        return [self._segment(inputs) for inputs in batched_inputs]

    def _segment(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        if "proposals" in inputs:
            raise UserError(
                "given proposals are of one look at the image: "
                "set TEST.AUG.ENABLED and TEST.SLIDING_WINDOW to False"
            )
        image = inputs["image"]
        images: Iterator[Tensor] = (self._resized(image, size) for size in self.sizes)
        pieces = [
            piece
            for resized in (images if self.sizes else [image])
            for piece in self._pieces(inputs, resized)
        ]
        return self.model.segment(inputs, pieces, image.shape[-2:])

    def _resized(self, image: Tensor, size: int) -> Tensor:
        array = image.permute(1, 2, 0).cpu().numpy()
        resized = resize_short_side(array, size, self.max_size)
        return torch.from_numpy(resized.transpose(2, 0, 1).copy())

    def _pieces(self, inputs: dict[str, Any], image: Tensor) -> Iterator[PartialScores]:
        """Tile by tile what one size adds; mirror images are turned back."""
        height, width = image.shape[-2:]
        tile = self.tile or max(height, width)
        tops, lefts = (tile_starts(side, tile, self.overlap) for side in (height, width))
        seen = _seen(tops, tile, height)[:, None] * _seen(lefts, tile, width)
        looks = max(len(self.sizes), 1) * (1 + self.flip)
        for top in tops:
            for left in lefts:
                window = slice(top, top + tile), slice(left, left + tile)
                view = image[(..., *window)]
                for mirrored, piece in enumerate(self._look(inputs, view)):
                    masks = piece.masks.flip(-1) if mirrored else piece.masks
                    share = (1 / (looks * seen[window])).to(masks)
                    yield PartialScores(
                        piece.class_probs, masks * share, (height, width), (top, left)
                    )

    def _look(self, inputs: dict[str, Any], view: Tensor) -> Iterator[PartialScores]:
        """The view's piece and, if asked for, its mirror image's."""
        views = [view, view.flip(-1)] if self.flip else [view]
        batch = [{**inputs, "image": each} for each in views]
        for regions in self.model.propose(batch):
            clip = self.model.classify(regions) if self.model.clip_ensemble else None
            yield self.model.piece(regions, self.model.combine(regions, clip))


def _seen(starts: list[int], tile: int, length: int) -> Tensor:
    """How many tiles show each pixel of an axis, float32 [length]."""
    seen = torch.zeros(length)
    for start in starts:
        seen[start : start + tile] += 1
    return seen
