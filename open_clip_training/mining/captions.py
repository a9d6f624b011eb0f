"""Images with captions: from COCO's JSON or a CSV."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_clip_training.common.tables import read_table
from ovseg.errors import UserError
from ovseg.utils.io import parse_json

#: how many images must not all be missing
IMAGES_CHECKED = 1000
UNKNOWN = "captions without an image"


@dataclass(frozen=True)
class CaptionedImage:
    """An image and what is said of it; the captions may be empty or none."""

    path: Path
    image_id: str
    captions: tuple[str, ...]


def read_captions(
    source: Path,
    images: Path | None,
    per_image: int,
    seed: int,
    limit: int | None,
    counts: Counter[str],
) -> list[CaptionedImage]:
    """Read images with captions.

    Args:
        source: COCO captions (``.json``) or a CSV with the columns ``image`` and ``caption``, one
            row a caption.
        images: folder of the images; None: that of ``source``.
        per_image: most captions an image; of more, ``seed`` and the image decide which.
        seed: of that choice.
        limit: only the first so many images.
        counts: "images", "captions", "empty captions" and "captions without an image" are added
            here.

    Returns:
        Every image once, in the order of the file.

    Raises:
        UserError: the file is missing, broken, lacks a column or entry, or names no image, or none
            of the first images is there.
    """
    if not source.is_file():
        raise UserError(f"--captions {str(source)!r}: there is no such file")
    folder = source.parent if images is None else images
    if not folder.is_dir():
        raise UserError(f"--images {str(folder)!r} is no folder; give the folder of the images")
    read = _read_coco if source.suffix.lower() == ".json" else _read_csv
    result = []
    for image_id, (name, captions) in itertools.islice(read(source, counts).items(), limit):
        counts["images"] += 1
        counts["empty captions"] += sum(not caption.strip() for caption in captions)
        kept = [caption for caption in captions if caption.strip()]
        if len(kept) > per_image:
            kept = random.Random(f"{seed} {image_id}").sample(kept, per_image)
        counts["captions"] += len(kept)
        result.append(CaptionedImage(folder / name, image_id, tuple(kept)))
    if not result:
        raise UserError(f"--captions {str(source)!r} names no image")
    first = result[:IMAGES_CHECKED]
    if not any(item.path.is_file() for item in first):
        raise UserError(
            f"--images {str(folder)!r}: none of the first {len(first)} images is there, such as "
            f"{str(first[0].path)!r}; give the folder that their names are relative to"
        )
    return result


def _read_coco(source: Path, counts: Counter[str]) -> dict[str, tuple[str, list[str]]]:
    try:
        document: Any = parse_json(source.read_text(encoding="utf-8-sig"))
        images: dict[str, tuple[str, list[str]]] = {}
        for image in document["images"]:
            if not isinstance(image["file_name"], str):
                raise TypeError(f"file_name {image['file_name']!r} is no text")
            images[str(image["id"])] = (image["file_name"], [])
        for annotation in document["annotations"]:
            of_image = images.get(str(annotation["image_id"]))
            if of_image is None:
                counts[UNKNOWN] += 1
            else:
                of_image[1].append(str(annotation["caption"] or ""))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--captions {str(source)!r} is not what COCO's captions are: {error!r}; it needs "
            "images (id, file_name) and annotations (image_id, caption)"
        ) from error
    return images


def _read_csv(source: Path, counts: Counter[str]) -> dict[str, tuple[str, list[str]]]:
    images: dict[str, tuple[str, list[str]]] = {}
    for row in read_table(source, ("image", "caption"), f"--captions {str(source)!r}"):
        if row["image"]:
            captions = images.setdefault(row["image"], (row["image"], []))[1]
            captions.append(row["caption"])
        else:
            counts[UNKNOWN] += 1
    return images
