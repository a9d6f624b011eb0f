"""Images and captions in memory, and the light augmentation of CLIP pretraining."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import torch
from torch import Tensor
from torch.nn import functional

from open_clip_training.common.images import zoom_grid
from open_clip_training.common.tables import read_table
from ovseg.errors import UserError
from ovseg.utils.images import read_image

if TYPE_CHECKING:
    import open_clip


@dataclass
class PretrainingData:
    """The whole training set.

    images: RGB uint8 ``(N, 3, S, S)``.
    caption_ids: int64 ``(N,)``, row of ``tokens``; equal captions share a row.
    tokens: int64 ``(number of distinct captions, 77)``, ids of CLIP's tokenizer.
    token_ids: the ids in use; ``unknown_token`` is none of them, and ids of the start and end
    tokens are ``first_special_token`` or larger.
    """

    images: Tensor
    caption_ids: Tensor
    tokens: Tensor
    token_ids: set[int]
    unknown_token: int
    first_special_token: int


def load_captioned_images(
    table: Path,
    size: int,
    tokenizer: open_clip.SimpleTokenizer,
    choose_tokens: Callable[[list[str]], set[int]],
) -> PretrainingData:
    """Read a CSV with the columns filepath (relative to its folder, or absolute) and title.

    Raises:
        UserError: the table or an image is missing or not what it should be.
    """
    if not table.is_file():
        raise UserError(f"no captions at {table}: run datasets/prepare_stickerscenes.py")
    rows = read_table(table, ("filepath", "title"), str(table))
    if not rows:
        raise UserError(f"{table} has no row: run datasets/prepare_stickerscenes.py")
    images = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
    for index, row in enumerate(rows):
        image = read_image(table.parent / row["filepath"])
        if image.shape[:2] != (size, size):
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        images[index] = torch.from_numpy(image).permute(2, 0, 1)
    titles = [row["title"] for row in rows]
    distinct = sorted(set(titles))
    places = {title: place for place, title in enumerate(distinct)}
    token_ids = choose_tokens(distinct)
    special = min(tokenizer.sot_token_id, tokenizer.eot_token_id)
    return PretrainingData(
        images=images,
        caption_ids=torch.tensor([places[title] for title in titles]),
        tokens=tokenizer(distinct).long(),
        token_ids=token_ids,
        unknown_token=next(i for i in range(1, special) if i not in token_ids),
        first_special_token=special,
    )


def jitter_images(images: Tensor) -> Tensor:
    """Mirror, crop a little, and change colours: RGB uint8 ``(B, 3, S, S)`` to float 0..255."""
    count = len(images)
    changed = images.float()
    scale = torch.empty(count, 2).uniform_(0.78, 1.0)
    shift = (torch.rand(count, 2) * 2 - 1) * (1 - scale)
    grid = zoom_grid(scale, torch.rand(count) < 0.5, shift, images)
    changed = functional.grid_sample(
        changed, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    grey = changed.mean(dim=1, keepdim=True)
    saturation = torch.empty(count, 1, 1, 1).uniform_(0.7, 1.2)
    changed = grey + (changed - grey) * saturation
    middle = changed.mean(dim=(1, 2, 3), keepdim=True)
    contrast = torch.empty(count, 1, 1, 1).uniform_(0.8, 1.2)
    gain = torch.empty(count, 3, 1, 1).uniform_(0.9, 1.1)
    return ((middle + (changed - middle) * contrast) * gain).clamp(0, 255)
