"""Pictures and captions in memory, and the light augmentation of CLIP pretraining."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import torch
from torch import Tensor
from torch.nn import functional

from open_clip_training.common.images import zoom_grid
from ovseg.errors import UserError

if TYPE_CHECKING:
    import open_clip

logger = logging.getLogger(__name__)


@dataclass
class CaptionedPictures:
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


def load_pictures(
    table: Path,
    size: int,
    tokenizer: open_clip.SimpleTokenizer,
    choose_tokens: Callable[[list[str]], set[int]],
) -> CaptionedPictures:
    """Read a CSV with the columns filepath (relative to its folder, or absolute) and title.

    Raises:
        UserError: the table or a picture is missing or not what it should be.
    """
    if not table.is_file():
        raise UserError(f"no captions at {table}: run datasets/prepare_stickerscenes.py")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"filepath", "title"} <= rows[0].keys():
        raise UserError(f"{table} must have the columns filepath and title, and a row at least")
    images = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
    for index, row in enumerate(rows):
        picture = cv2.imread(str(table.parent / row["filepath"]))
        if picture is None:
            raise UserError(f"{table.parent / row['filepath']} (in {table}) cannot be read")
        if picture.shape[:2] != (size, size):
            picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
        images[index] = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)
    titles = [row["title"] for row in rows]
    distinct = sorted(set(titles))
    places = {title: place for place, title in enumerate(distinct)}
    token_ids = choose_tokens(distinct)
    special = min(tokenizer.sot_token_id, tokenizer.eot_token_id)
    return CaptionedPictures(
        images=images,
        caption_ids=torch.tensor([places[title] for title in titles]),
        tokens=tokenizer(distinct).long(),
        token_ids=token_ids,
        unknown_token=next(i for i in range(1, special) if i not in token_ids),
        first_special_token=special,
    )


def jitter_pictures(images: Tensor) -> Tensor:
    """Mirror, crop a little, and change colours: RGB uint8 ``(B, 3, S, S)`` to float 0..255."""
    count = len(images)
    pictures = images.float()
    scale = torch.empty(count, 2).uniform_(0.78, 1.0)
    shift = (torch.rand(count, 2) * 2 - 1) * (1 - scale)
    grid = zoom_grid(scale, torch.rand(count) < 0.5, shift, images)
    pictures = functional.grid_sample(
        pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    grey = pictures.mean(dim=1, keepdim=True)
    saturation = torch.empty(count, 1, 1, 1).uniform_(0.7, 1.2)
    pictures = grey + (pictures - grey) * saturation
    middle = pictures.mean(dim=(1, 2, 3), keepdim=True)
    contrast = torch.empty(count, 1, 1, 1).uniform_(0.8, 1.2)
    gain = torch.empty(count, 3, 1, 1).uniform_(0.9, 1.1)
    return ((middle + (pictures - middle) * contrast) * gain).clamp(0, 255)
