"""Pascal Context with 59 and with 459 classes: ``pascal_context_{59,459}_sem_seg_*``."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np

from ovseg.data.preparation.files import (
    check_image,
    has_images,
    read_ids,
    read_label_mat,
    read_list,
    relabel_file,
    require,
    write_labels,
)
from ovseg.data.preparation.labels import label_table
from ovseg.data.preparation.runner import Job
from ovseg.data.splits import find_split
from ovseg.errors import UserError

logger = logging.getLogger(__name__)

_CONTEXT = "Pascal Context, https://cs.stanford.edu/~roozbeh/pascal-context/"
_LIST = "the page that datasets/README.md names"
#: LabelMap is 16 bits wide
_NUM_IDS = 65536


def plan(root: Path, split: str) -> list[Job]:
    """Jobs for ``trainval/*.mat``, each writing the label maps of both class lists.

    In 459 classes the label is the id - 1 and 0 is ignored; in 59 all ids but those are ignored.

    Args:
        root: folder of data sets.
        split: ``"train"`` or ``"val"``.

    Raises:
        UserError: a list of images or classes or the folder is missing, or a list does not fit.
    """
    many = find_split(f"pascal_context_459_sem_seg_{split}")
    few = find_split(f"pascal_context_59_sem_seg_{split}")
    voc = root / "VOCdevkit" / "VOC2010"
    ids = read_ids(_id_list(voc, split), _LIST)
    folder = require(voc / "trainval", f"trainval.tar.gz of {_CONTEXT}")
    numbers = read_class_numbers(voc / "labels.txt")
    tables = (
        _many_table(numbers, many.classes().names, many.ignore_label),
        _few_table(numbers, few.classes().names, few.ignore_label),
    )
    compare = has_images(root / many.images)
    jobs = []
    for name in ids:
        image = root / many.images / f"{name}.jpg" if compare else None
        outputs = (root / many.labels / f"{name}.tif", root / few.labels / f"{name}.png")
        work = partial(convert, folder / f"{name}.mat", image, outputs, tables)
        jobs.append(Job(outputs, work))
    return jobs


def convert(
    source: Path,
    image: Path | None,
    outputs: tuple[Path, Path],
    tables: tuple[np.ndarray, np.ndarray],
) -> None:
    """Write the 16-bit map of 459 classes and the 8-bit map of 59 for one ``.mat``.

    Raises:
        BrokenFileError: the file or its image cannot be used.
    """
    raw = read_label_mat(source)
    if image is not None:
        check_image(image, source, raw.shape)
    for output, table in zip(outputs, tables, strict=True):
        write_labels(output, relabel_file(source, raw, table))


def _id_list(voc: Path, split: str) -> Path:
    """``pascalcontext_<split>.txt``; for training also VOC's own list, which is the same split."""
    own, original = voc / f"pascalcontext_{split}.txt", voc / "ImageSets" / "Main" / "train.txt"
    return original if split == "train" and not own.exists() and original.exists() else own


def read_class_numbers(path: Path) -> dict[str, int]:
    """Read lines ``id: name``; returns name -> id, names without their blanks.

    Raises:
        UserError: the file is missing or not UTF-8, or a line has no id.
    """
    numbers = {}
    for line in read_list(path, _CONTEXT).splitlines():
        number, colon, name = line.partition(":")
        if not line.strip():
            continue
        if not colon or not number.strip().isdigit():
            raise UserError(f"{path}: line {line!r} is not 'id: name'; take the file again")
        numbers[_plain(name)] = int(number)
    return numbers


def _plain(name: str) -> str:
    """Blanks are set differently here and there: "pottedplant", "potted plant"."""
    return "".join(name.split())


def _few_table(numbers: dict[str, int], names: tuple[str, ...], ignore_label: int) -> np.ndarray:
    """Label of each id; ids of other classes are ignored."""
    missing = [name for name in names if _plain(name) not in numbers]
    if missing:
        raise UserError(f"labels.txt lacks class {missing[0]!r}; take the file again: {_CONTEXT}")
    labels = {numbers[_plain(name)]: label for label, name in enumerate(names)}
    return label_table(labels, _NUM_IDS, ignore_label)


def _many_table(numbers: dict[str, int], names: tuple[str, ...], ignore_label: int) -> np.ndarray:
    """Label of each id; there are no others."""
    for label, name in enumerate(names):
        if numbers.get(_plain(name)) != label + 1:
            logger.warning("labels.txt does not name class %d %r", label + 1, name)
    labels = {label + 1: label for label in range(len(names))}
    return label_table(labels, _NUM_IDS, ignore_label, ignored=[0])
