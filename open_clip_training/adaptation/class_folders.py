"""Zero-shot accuracy on crops in class folders, as those of the released ``ade_gt_150cls_val``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch

from open_clip_training.adaptation.batches import read_crop
from open_clip_training.adaptation.pairs import ByteRange, StoredPair
from open_clip_training.adaptation.released import FilledBackground
from open_clip_training.adaptation.zero_shot import Sample, ZeroShotCheck
from open_clip_training.common.images import CPU_CHUNK
from ovseg.data.vocabulary import read_vocabulary
from ovseg.errors import UserError
from ovseg.modeling.clip import ClipEncoder
from ovseg.utils.images import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

#: released folder -> vocabulary
RELEASED_FOLDERS = {"ade_gt_150cls_val": "ade20k-150"}

Crop = tuple[Path, int]


class ClassFolderCheck(ZeroShotCheck[Sequence[Crop]]):
    """Crops in class folders, one after the other through CLIP at its size, aspect not kept.

    The mask that mask prompts need is where a crop is not of the released crops' background.
    """

    def __init__(
        self, folder: Path, classes: str | None, limit: int = 0, fill_tolerance: int = 0
    ) -> None:
        """
        Args:
            folder: of the class folders.
            classes: file of class names or name of a vocabulary; None: that of a released folder.
            limit: how many crops of it, evenly taken; 0: all.
            fill_tolerance: of the background, see :class:`FilledBackground`.

        Raises:
            UserError: there are no crops, no class names, or folders that are of no class.
        """
        classes = RELEASED_FOLDERS.get(folder.resolve().name) if classes is None else classes
        if classes is None:
            raise UserError(
                f"--eval-data {str(folder)!r} is a folder: give its class names by --eval-classes "
                "FILE, or the NAME of a vocabulary (ade20k-150)"
            )
        names = read_vocabulary(classes).names
        crops = find_crops(folder, names)
        if limit and limit < len(crops):
            crops = [crops[place * len(crops) // limit] for place in range(limit)]
        chunks = [crops[start : start + CPU_CHUNK] for start in range(0, len(crops), CPU_CHUNK)]
        super().__init__(folder.name, chunks, names, {})
        self.background = FilledBackground(tolerance=fill_tolerance)

    def read(self, record: Sequence[Crop], encoder: ClipEncoder) -> Sample:
        """Some crops as they are; those that cannot be used are named and counted."""
        size = encoder.image_size
        images, masks, labels = [], [], []
        for path, label in record:
            pair = StoredPair(self.names[label], ByteRange(str(path)), self.background)
            try:
                image, mask = read_crop(pair, size, with_mask=True)
            except (OSError, ValueError, cv2.error) as error:
                logger.warning("%s: left out an image: %s", self.name, error)
                continue
            images.append(image)
            masks.append(mask)
            labels.append(label)
        none = torch.zeros((0, 4, *size), dtype=torch.uint8)
        return Sample(
            torch.stack(images) if images else none[:, :3],
            torch.stack(masks) if masks else none[:, 3:],
            torch.tensor(labels, dtype=torch.int64),
            left_out=len(record) - len(labels),
        )


def find_crops(folder: Path, names: Sequence[str]) -> list[Crop]:
    """The crops of class folders and their labels.

    Folders come in the order of their names as texts ("0", "1", "10", "100", ...), as in
    torchvision's ``ImageFolder``. Unlike there, the place in that order is not the label where the
    names say more: a number is its own label, a class name has that of its class.

    Args:
        folder: holds a folder for each class.
        names: of the classes, by label.

    Raises:
        UserError: there is no crop, or a folder that is of no class.
    """
    try:
        folders = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise UserError(f"--eval-data {str(folder)!r}: {error.strerror}") from error
    labels = _labels([path.name for path in folders], names, folder)
    crops = [
        (path, label)
        for place, label in zip(folders, labels, strict=True)
        for path in sorted(place.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not crops:
        raise UserError(
            f"--eval-data {str(folder)!r} has no class folders with images; give their "
            "parent folder"
        )
    return crops


def _labels(folders: Sequence[str], names: Sequence[str], root: Path) -> list[int]:
    place_of = {name.casefold(): place for place, name in enumerate(names)}
    if all(name.isdecimal() for name in folders):
        labels = [int(name) if int(name) < len(names) else None for name in folders]
    else:
        labels = [place_of.get(name.casefold()) for name in folders]
        if len(folders) == len(names) and not any(name.casefold() in place_of for name in folders):
            logger.warning("%s: its folders are named by neither number nor class: taken for the "
                           "classes in the order of their names", root)  # fmt: skip
            return list(range(len(folders)))
    found = [label for label in labels if label is not None]
    if len(found) < len(labels):
        raise UserError(
            f"--eval-data {str(root)!r}: folder {folders[labels.index(None)]!r} is of no class of "
            f"--eval-classes; folders have the names of classes, or are 0 to {len(names) - 1}"
        )
    if len(set(found)) < len(found):
        raise UserError(f"--eval-data {str(root)!r}: two of its folders are of one class")
    return found
