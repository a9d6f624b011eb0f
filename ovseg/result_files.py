"""A prediction as files: the overlay, the label map, and a JSON with what was found where; with
segments also their ids as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.errors import UserError
from ovseg.utils.images import IMAGE_SUFFIXES
from ovseg.utils.io import atomic_path, make_folder

if TYPE_CHECKING:
    from ovseg.prediction import Prediction
    from ovseg.segments import InstancePrediction, PanopticPrediction


@dataclass(frozen=True)
class ResultPaths:
    """Where the files of one picture go."""

    overlay: Path
    labels: Path
    summary: Path

    @classmethod
    def beside(cls, overlay: Path, name: str) -> ResultPaths:
        """``NAME_labels.png`` and ``NAME.json`` in the overlay's folder."""
        return cls(overlay, overlay.parent / f"{name}_labels.png", overlay.parent / f"{name}.json")

    @property
    def panoptic(self) -> Path:
        """``NAME_panoptic.png``, of segments."""
        return self.summary.with_name(f"{self.summary.stem}_panoptic.png")

    def all(self) -> tuple[Path, Path, Path]:
        """The three paths of every prediction."""
        return self.overlay, self.labels, self.summary

    def possible(self) -> set[Path]:
        """Where files may be written, resolved."""
        return {path.resolve() for path in (*self.all(), self.panoptic)}


def plan_outputs(inputs: Sequence[Path], output: str) -> list[ResultPaths]:
    """Where the results of every input go; no two share a file and no input is overwritten.

    Raises:
        UserError: ``output`` cannot be used.
    """
    target = Path(output).expanduser()
    taken = {path.resolve() for path in inputs}
    if not target.is_dir() and target.suffix.lower() in IMAGE_SUFFIXES:
        if len(inputs) > 1:
            raise UserError(
                f"--output {output!r} is one file name for {len(inputs)} pictures; give a folder"
            )
        paths = [ResultPaths.beside(target, target.stem)]
        if taken & paths[0].possible():
            raise UserError(f"--output {output!r} would overwrite the input; give another name")
    else:
        paths = []
        for path in inputs:
            paths.append(_free_paths(target, path, taken))
            taken |= paths[-1].possible()
    make_folder(paths[0].overlay.parent, "--output")
    return paths


def _free_paths(folder: Path, picture: Path, taken: set[Path]) -> ResultPaths:
    # photographs stay JPEG; drawings and everything else would show its artefacts
    suffix = ".jpg" if picture.suffix.lower() in {".jpg", ".jpeg"} else ".png"
    lower = {str(path).casefold() for path in taken}  # some file systems ignore case
    name, number = picture.stem, 1
    while True:
        paths = ResultPaths.beside(folder / f"{name}_overlay{suffix}", name)
        if not any(str(path).casefold() in lower for path in paths.possible()):
            return paths
        number += 1
        name = f"{picture.stem}_{number}"


def save_result(
    prediction: Prediction,
    paths: ResultPaths,
    about: dict[str, Any],
    panoptic: PanopticPrediction | None = None,
    instances: InstancePrediction | None = None,
) -> None:
    """Write the files, each whole or not at all; the JSON comes last.

    Args:
        prediction: with its image.
        paths: where to; missing folders are made, existing files replaced.
        about: further entries of the JSON (the picture's file, the model).
        panoptic: of the same image; the overlay shows its segments, ``NAME_panoptic.png`` has their
            ids, and the JSON lists them as ``segments``.
        instances: of the same image; listed in the JSON.

    Raises:
        UserError: a file cannot be written.
    """
    summary = {
        **about,
        **prediction.describe(),
        "overlay": paths.overlay.name,
        "label_map": paths.labels.name,
    }
    if panoptic is not None:
        summary |= {"segments": panoptic.describe(), "panoptic": paths.panoptic.name}
    if instances is not None:
        summary |= {"instances": instances.describe()}
    try:
        with atomic_path(paths.overlay) as path:
            options: dict[str, Any] = {"quality": 92} if _is_lossy(path) else {}
            (panoptic or prediction).overlay().save(path, **options)
        with atomic_path(paths.labels) as path:
            prediction.label_image().save(path)
        if panoptic is not None:
            with atomic_path(paths.panoptic) as path:
                panoptic.id_image().save(path)
        with atomic_path(paths.summary) as path:
            path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        folder = str(paths.overlay.parent)
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot write results to {folder!r} ({reason}); give another --output"
        ) from error


def _is_lossy(path: Path) -> bool:
    return path.suffix.lower() in {".jpg", ".jpeg", ".webp"}
