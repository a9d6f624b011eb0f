"""Archives with one grey or palette PNG an image: COCO-Stuff, ADE20K-150, VOC."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from ovseg.data.preparation.files import (
    check_image,
    has_images,
    read_raw_labels,
    relabel_file,
    require,
    write_labels,
)
from ovseg.data.preparation.runner import Job
from ovseg.errors import UserError


def find_label_maps(folder: Path, images: Path, archive: str) -> list[Path]:
    """The label maps (``.png``) of a folder and those that its images (``.jpg``) should have.

    Args:
        folder: of label maps.
        images: may be missing.
        archive: where ``folder`` comes from.

    Raises:
        UserError: the folder is missing, or there is no label map at all.
    """
    names = {path.stem for path in require(folder, archive).glob("*.png")}
    if not names:
        raise UserError(f"{folder} holds no .png; unpack there {archive}")
    names |= {path.stem for path in images.glob("*.jpg")}
    return [folder / f"{name}.png" for name in sorted(names)]


def plan_label_maps(
    sources: Iterable[Path], images: Path, outputs: Path, table: np.ndarray
) -> list[Job]:
    """One job for each label map.

    Args:
        sources: the archive's label maps; one that is missing is a failure when it is its turn.
        images: folder of the images (``.jpg``), whose sizes are compared.
        outputs: folder of ours (``.png``).
        table: from :func:`ovseg.data.preparation.labels.label_table`.
    """
    compare = has_images(images)
    return [
        Job(
            (outputs / f"{source.stem}.png",),
            partial(
                convert_label_map,
                source,
                images / f"{source.stem}.jpg" if compare else None,
                outputs / f"{source.stem}.png",
                table,
            ),
        )
        for source in sources
    ]


def convert_label_map(source: Path, image: Path | None, output: Path, table: np.ndarray) -> None:
    """Relabel one label map; ``image`` None leaves its size unchecked.

    Raises:
        BrokenFileError: one of the two cannot be used.
    """
    raw = read_raw_labels(source)
    if image is not None:
        check_image(image, source, raw.shape)
    write_labels(output, relabel_file(source, raw, table))
