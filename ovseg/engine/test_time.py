"""Several views of an image in place of one: test-time augmentation and the sliding window.

Every view is segmented by itself, and the scores are averaged: over the sizes and mirror images of
``TEST.AUG``, at each pixel over the tiles of ``TEST.SLIDING_WINDOW`` that show it, and over both
when both are on. All that is kept of a view is its proposals and their features, so memory grows
with views x proposals x their pixels and not with the number of classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ovseg.data.mapper import resize_short_side
from ovseg.engine.dense_crf import DenseCrfSegmenter
from ovseg.errors import UserError
from ovseg.modeling import OVSeg
from ovseg.structures import PartialScores, Regions, TextEmbeddings


def for_inference(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The model as ``TEST.AUG``, ``TEST.SLIDING_WINDOW`` and ``TEST.DENSE_CRF`` want it used;
    itself if all are off.

    Args:
        cfg: checked already.
        model: :class:`OVSeg`, maybe inside ``DistributedDataParallel``.
    """
    several = cfg.TEST.AUG.ENABLED or cfg.TEST.SLIDING_WINDOW
    if not (several or cfg.TEST.DENSE_CRF):
        return model
    plain = model.module if isinstance(model, DistributedDataParallel) else model
    used = _several_views(cfg, plain) if several else plain
    return DenseCrfSegmenter(used) if cfg.TEST.DENSE_CRF else used


def as_ovseg(model: nn.Module) -> OVSeg:
    """The model, for what needs proposals.

    Raises:
        UserError: it is of another method, which has none.
    """
    if not isinstance(model, OVSeg):
        raise UserError(
            f"MODEL.META_ARCHITECTURE {type(model).__name__} has no proposals, which are needed "
            "here; leave out what asks for them, or take a config of OVSeg"
        )
    return model


def plain_model(model: nn.Module) -> OVSeg:
    """The model inside of what :func:`for_inference` gave.

    Raises:
        UserError: see :func:`as_ovseg`.
    """
    while isinstance(model, DenseCrfSegmenter | MultiViewSegmenter):
        model = model.model
    return as_ovseg(model)


def _several_views(cfg: CfgNode, model: nn.Module) -> MultiViewSegmenter:
    assert isinstance(model, OVSeg)
    return MultiViewSegmenter(
        model,
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


@dataclass
class View:
    """One view of an image: a tile of one of its sizes, or the mirror image of such a tile.

    Attributes:
        regions: its proposals, encoded.
        mirrored: it is a mirror image.
        share: float (h, w); by how much each of its pixels counts in the average.
        canvas: height and width of the resized image that it is a tile of.
        origin: row and column of its upper left pixel there.
    """

    regions: Regions
    mirrored: bool
    share: Tensor
    canvas: tuple[int, int]
    origin: tuple[int, int]


class MultiViewSegmenter(nn.Module):
    """Takes and gives what :class:`OVSeg` does in inference, over several views of an image."""

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
            model: segments every view.
            sizes: lengths in pixels of the shorter side that the image is resized to, each a view;
                none: the image as it is given.
            max_size: of the longer side after resizing, in pixels; read when there are sizes.
            flip: view the mirror image too.
            tile: side in pixels of the square tiles that each view is cut into; None: not cut.
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
        encoded = self.encode(batched_inputs)
        return [self.segment(*each) for each in zip(batched_inputs, encoded, strict=True)]

    def encode(self, batched_inputs: list[dict[str, Any]]) -> list[list[View]]:
        """The views of each image, with what does not depend on class names.

        Raises:
            UserError: an image brings proposals of its own.
        """
        return [self._views(inputs) for inputs in batched_inputs]

    def segment(
        self,
        inputs: dict[str, Any],
        views: Sequence[View],
        *,
        ensemble_weight: float | None = None,
        mask_threshold: float | None = None,
    ) -> dict[str, Tensor]:
        """The segmentation of an encoded image; see :meth:`OVSeg.segment`."""
        text = self.model.text(self.model.vocabulary(inputs))
        parts = [self._part(view, text, ensemble_weight, mask_threshold) for view in views]
        return self.model.assemble(inputs, parts, inputs["image"].shape[-2:])

    def recrop(self, views: Sequence[View], mask_threshold: float) -> list[View]:
        """Each view with its crops cut at another threshold; see :meth:`OVSeg.recrop`."""
        return [
            replace(view, regions=self.model.recrop(view.regions, mask_threshold)) for view in views
        ]

    def _part(
        self,
        view: View,
        text: TextEmbeddings,
        ensemble_weight: float | None,
        mask_threshold: float | None,
    ) -> PartialScores:
        classified = self.model.classify(view.regions, text, ensemble_weight)
        part = self.model.partial_scores(view.regions, classified, text.vocabulary, mask_threshold)
        masks = part.masks.flip(-1) if view.mirrored else part.masks
        return PartialScores(
            part.class_probs, masks * view.share.to(masks), view.canvas, view.origin
        )

    def _views(self, inputs: dict[str, Any]) -> list[View]:
        if "proposals" in inputs:
            raise UserError(
                "given proposals are of one view of the image: "
                "set TEST.AUG.ENABLED and TEST.SLIDING_WINDOW to False"
            )
        image = inputs["image"]
        images: Iterator[Tensor] = (self._resized(image, size) for size in self.sizes)
        return [
            view
            for resized in (images if self.sizes else [image])
            for view in self._tiles(inputs, resized)
        ]

    def _resized(self, image: Tensor, size: int) -> Tensor:
        array = image.permute(1, 2, 0).cpu().numpy()
        resized = resize_short_side(array, size, self.max_size)
        return torch.from_numpy(resized.transpose(2, 0, 1).copy())

    def _tiles(self, inputs: dict[str, Any], image: Tensor) -> Iterator[View]:
        """The views of one size, tile by tile."""
        height, width = image.shape[-2:]
        tile = self.tile or max(height, width)
        tops, lefts = (tile_starts(side, tile, self.overlap) for side in (height, width))
        seen = _seen(tops, tile, height)[:, None] * _seen(lefts, tile, width)
        views = max(len(self.sizes), 1) * (1 + self.flip)
        for top in tops:
            for left in lefts:
                window = slice(top, top + tile), slice(left, left + tile)
                shown = image[(..., *window)]
                both = [shown, shown.flip(-1)] if self.flip else [shown]
                encoded = self.model.encode([{**inputs, "image": each} for each in both])
                share = 1 / (views * seen[window])
                for mirrored, regions in enumerate(encoded):
                    yield View(regions, bool(mirrored), share, (height, width), (top, left))


def _seen(starts: list[int], tile: int, length: int) -> Tensor:
    """How many tiles show each pixel of an axis, float32 (length,)."""
    seen = torch.zeros(length)
    for start in starts:
        seen[start : start + tile] += 1
    return seen
