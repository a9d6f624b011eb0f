"""The released mask-category pairs: ``coco_proposal_1cap.csv``, ``coco_gt_171cls.csv``.

A table with the columns ``filepath`` and ``title`` ("a photo of a cat.") over crops whose
background is filled with one colour. There are no mask files: the background is where that colour
is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from open_clip_training.common.tables import path_below, read_table
from ovseg.errors import UserError

logger = logging.getLogger(__name__)

COLUMNS = ("filepath", "title")
#: background of the released crops, RGB
FILL = (124, 116, 103)
#: of the released titles
TEMPLATE = "a photo of a {}."
AS_IS = "as-is"
#: crops of a table, of which one at least must be there
LOOKED_FOR = 100


@dataclass(frozen=True, slots=True)
class FilledBackground:
    """A crop's region is every pixel that has not its background's colour.

    ``colour`` is RGB 0..255. ``tolerance``: a pixel is background when no channel differs by more;
    0 as published, more for JPEG, which shifts colours.
    """

    colour: tuple[int, int, int] = FILL
    tolerance: int = 0

    def region(self, images: Tensor) -> Tensor:
        """Masks of crops *after* they were resized, as published.

        Colours that resizing mixed at a region's border belong to the region.

        Args:
            images: RGB uint8 ``(..., 3, H, W)``.

        Returns:
            bool ``(..., 1, H, W)``, True on the region.
        """
        colour = torch.tensor(self.colour, device=images.device).view(3, 1, 1)
        return ((images.int() - colour).abs() > self.tolerance).any(dim=-3, keepdim=True)


def read_released(path: Path, captions: str, root: Path | None) -> list[tuple[str, Path]]:
    """The nouns and crops of a table.

    Args:
        path: of the table; columns are separated by tabs or commas.
        captions: the template of its titles, ``{}`` in place of the noun; or ``"as-is"``, which
            gives the titles as they stand.
        root: what relative paths are relative to; by default the table's folder.

    Returns:
        Noun and crop of each row. A title that is not of the template is its own noun.

    Raises:
        UserError: no title is of the template, or no crop is there.
    """
    rows = read_table(path, COLUMNS, f"--train-data {path}")
    complete = [row for row in rows if row["filepath"] and row["title"].strip()]
    if len(complete) < len(rows):
        logger.warning("%s: left out %d rows with an empty cell", path, len(rows) - len(complete))
    folder = path.parent if root is None else root
    crops = [path_below(folder, row["filepath"], f"--train-data {path}") for row in complete]
    check_crops(path, crops[:LOOKED_FOR])
    titles = [" ".join(row["title"].split()) for row in complete]
    nouns = titles if captions == AS_IS else _nouns(titles, captions, path)
    return list(zip(nouns, crops, strict=True))


def check_crops(table: Path, crops: Sequence[Path]) -> None:
    """Look whether the first crops of a table are there.

    Raises:
        UserError: none of them is.
    """
    if crops and not any(crop.is_file() for crop in crops):
        raise UserError(
            f"--train-data {table}: {crops[0]} is not there, nor are the next ones; give "
            "--data-root FOLDER, to which its paths are relative"
        )


def _nouns(titles: Sequence[str], template: str, path: Path) -> list[str]:
    pattern = title_pattern(template)
    found = [pattern.fullmatch(title) for title in titles]
    others = [title for title, match in zip(titles, found, strict=True) if match is None]
    if titles and len(others) == len(titles):
        raise UserError(
            f"--captions {template!r}: no title of {path} is like that; the first is "
            f"{titles[0]!r}; give its own template, or as-is"
        )
    if others:
        logger.warning("%s: %d titles are not like %r and stay as they are, the first is %r",
                       path, len(others), template, others[0])  # fmt: skip
    return [match["noun"] if match else title
            for title, match in zip(titles, found, strict=True)]  # fmt: skip


def title_pattern(template: str) -> re.Pattern[str]:
    """What matches titles of a template, with the group ``noun``.

    "an" may stand for an "a" before the noun, and the final full stop may be missing; case does not
    matter.
    """
    before, _, after = template.partition("{}")
    start = re.escape(before)
    if re.search(r"\ba $", before):
        start = re.escape(before[:-2]) + r"an?\ "
    end = re.escape(after[:-1]) + r"\.?" if after.endswith(".") else re.escape(after)
    return re.compile(rf"{start}(?P<noun>[^\s.].*?){end}", re.IGNORECASE)
