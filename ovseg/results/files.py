"""Where the files of predictions go, and that they are written whole; the JSON comes last."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.errors import UserError
from ovseg.results.formats import DEFAULT_FORMATS, FORMATS
from ovseg.utils.images import IMAGE_SUFFIXES, is_writable
from ovseg.utils.io import atomic_path, make_folder, readable_name, user_path, write_json

if TYPE_CHECKING:
    from ovseg.prediction import Prediction
    from ovseg.segments import InstancePrediction, PanopticPrediction


#: of ``ovseg label``: what a run was begun with
LABEL_PLAN, LABEL_SETTINGS = "plan.jsonl", "settings.json"
_OVERLAY, _LABELS, _PANOPTIC = "_overlay", "_labels", "_panoptic"


@dataclass(frozen=True)
class ResultPaths:
    """Where the files of one image go."""

    overlay: Path
    labels: Path
    summary: Path

    @classmethod
    def beside(cls, overlay: Path, name: str) -> ResultPaths:
        """``NAME_labels.png`` and ``NAME.json`` in the overlay's folder."""
        folder = overlay.parent
        return cls(overlay, folder / f"{name}{_LABELS}.png", folder / f"{name}.json")

    def all(self) -> tuple[Path, Path, Path]:
        """Overlay, label map and JSON."""
        return self.overlay, self.labels, self.summary

    @property
    def panoptic(self) -> Path:
        """``NAME_panoptic.png``, of segments."""
        return self.summary.with_name(f"{self.summary.stem}{_PANOPTIC}.png")

    @property
    def name(self) -> str:
        """Of the image among the others."""
        return self.summary.stem

    @property
    def folder(self) -> Path:
        """Of the results."""
        return self.summary.parent

    def part(self, subfolder: str, suffix: str) -> Path:
        """The file of a format that has a subfolder."""
        return self.folder / subfolder / f"{self.name}{suffix}"

    def possible(self) -> list[Path]:
        """Where files may be written, in whatever format."""
        parts = [path for format in FORMATS.values() for path in format.paths(self)]
        return list(dict.fromkeys([*self.all(), self.panoptic, *parts]))


def is_result(file: Path) -> bool:
    """Whether an earlier run wrote a file, as its name and the files beside it tell."""
    if file.suffix == ".json":
        return file.with_name(f"{file.stem}{_LABELS}.png").exists()
    name, mark, kind = file.stem.rpartition("_")
    ours = f"{mark}{kind}" in {_OVERLAY, _LABELS, _PANOPTIC}
    return ours and file.with_name(f"{name}.json").exists()


def folders_of_results(folder: Path, names: Sequence[str]) -> set[str]:
    """The subfolders that an earlier run wrote into, as results beside them tell.

    Args:
        folder: where there may be results.
        names: of its files.
    """
    found: set[str] = set()
    for name in (Path(name).stem for name in names if name.endswith(".json")):
        paths = ResultPaths.beside(folder / f"{name}{_OVERLAY}.png", name)
        for path in paths.possible():
            subfolder, *rest = path.relative_to(folder).parts
            if rest and subfolder not in found and path.exists():
                found.add(subfolder)
    return found


def holds_labels(names: Sequence[str]) -> bool:
    """Whether ``ovseg label`` wrote a folder of these files, which may hold copies of images."""
    return {LABEL_PLAN, LABEL_SETTINGS} <= set(names)


def names_overlay(output: str) -> bool:
    """Whether ``--output`` is the file of an overlay, and not a folder."""
    target = user_path(output)
    return not target.is_dir() and target.suffix.lower() in IMAGE_SUFFIXES


def plan_outputs(inputs: Sequence[Path], output: str) -> list[ResultPaths]:
    """Where the results of every input go; no two share a file and no input is overwritten.

    Raises:
        UserError: ``output`` cannot be used.
    """
    target = user_path(output)
    taken = {_folded(path.resolve()) for path in inputs}
    place = target.resolve()
    if names_overlay(output):
        if not is_writable(target.suffix):
            raise UserError(
                f"--output {output!r}: {target.suffix} files cannot be written here; give .png or "
                ".jpg, or a folder"
            )
        if len(inputs) > 1:
            raise UserError(
                f"--output {output!r} is one file name for {len(inputs)} images; give a folder"
            )
        paths = [ResultPaths.beside(target, target.stem)]
        if any(_folded(path.resolve()) in taken for path in paths[0].possible()):
            raise UserError(f"--output {output!r} would overwrite the input; give another name")
    else:
        joint = [name for format in FORMATS.values() for name in format.joint]
        taken.update(_folded(place / name) for name in joint)
        paths, numbers = [], Counter[tuple[str, str]]()
        for path in inputs:
            paths.append(_free_paths(target, place, path, taken, numbers))
            taken.update(_folded(place / each.relative_to(target)) for each in paths[-1].possible())
    folder = paths[0].folder
    make_folder(folder, "--output")
    if not os.access(folder, os.W_OK):
        raise UserError(f"--output {str(folder)!r} cannot be written to; give another folder")
    return paths


def _folded(path: Path) -> str:
    return str(path).casefold()  # some file systems ignore case


def _free_paths(
    folder: Path, place: Path, image: Path, taken: set[str], numbers: Counter[tuple[str, str]]
) -> ResultPaths:
    """The first results in a folder, which is resolved ``place``, that nothing has taken.

    ``numbers`` is how far the images of each name have counted.
    """
    # photographs stay JPEG; drawings and everything else would show its artefacts
    suffix = ".jpg" if image.suffix.lower() in {".jpg", ".jpeg"} else ".png"
    stem = readable_name(image.stem)
    key = (stem, suffix)
    while True:
        numbers[key] += 1
        number = numbers[key]
        name = stem if number == 1 else f"{stem}_{number}"
        paths = ResultPaths.beside(folder / f"{name}{_OVERLAY}{suffix}", name)
        wanted = (_folded(place / path.relative_to(folder)) for path in paths.possible())
        if not any(path in taken for path in wanted):
            return paths


def save_result(
    prediction: Prediction,
    paths: ResultPaths,
    about: dict[str, Any],
    formats: Sequence[str] = DEFAULT_FORMATS,
    panoptic: PanopticPrediction | None = None,
    instances: InstancePrediction | None = None,
) -> None:
    """Write the files, each whole or not at all; the JSON comes last.

    Args:
        prediction: with its image.
        paths: where to; missing folders are made, existing files replaced.
        about: further entries of the JSON (the image's file, the model).
        formats: names of :data:`ovseg.results.formats.FORMATS`.
        panoptic: of the same image; the overlay shows its segments, ``NAME_panoptic.png`` has their
            ids, and the JSON lists them as ``segments``.
        instances: of the same image; listed in the JSON.

    Raises:
        UserError: a file cannot be written.
    """
    summary = {**about, **prediction.describe()}
    if panoptic is not None:
        summary |= {"segments": panoptic.describe(), "panoptic": paths.panoptic.name}
    if instances is not None:
        summary |= {"instances": instances.describe()}
    try:
        if panoptic is not None:
            with atomic_path(paths.panoptic) as path:
                panoptic.id_image().save(path)
        for name in formats:
            shown: Any = panoptic if name == "overlay" and panoptic is not None else prediction
            FORMATS[name].write(shown, paths, about)
            written = FORMATS[name].paths(paths)[0].relative_to(paths.folder)
            summary[_entry(name)] = written.as_posix()
        write_json(paths.summary, summary, indent=2)
    except OSError as error:
        raise _unwritable(paths.folder, error) from error


def _entry(format: str) -> str:
    """The entry of the JSON that says where a format's file is."""
    return "label_map" if format == "labels" else format


def finish_results(done: Sequence[ResultPaths], formats: Sequence[str]) -> list[Path]:
    """Write the files of all images, of those formats that have one.

    Args:
        done: the images that were saved in these formats, in this run or before.
        formats: see :func:`save_result`.

    Returns:
        The files.

    Raises:
        UserError: a file cannot be written, or one of an earlier run cannot be read.
    """
    finishers = [FORMATS[name].finish for name in formats if FORMATS[name].finish]
    try:
        return [finish(done[0].folder, done) for finish in finishers if finish and done]
    except OSError as error:
        raise _unwritable(done[0].folder, error) from error


def is_done(
    paths: ResultPaths,
    formats: Sequence[str],
    class_names: Sequence[str],
    file: str,
    model: Mapping[str, object],
) -> bool:
    """Whether an earlier run saved an image in all these formats, for the same words and model, and
    after the image was last written.

    Args:
        paths: of the image.
        formats: see :func:`save_result`.
        class_names: in their order.
        file: the image's own.
        model: as in the JSON; what it runs on makes no difference.
    """
    wanted = [path for name in formats for path in FORMATS[name].paths(paths)]
    if not all(path.exists() for path in (*wanted, paths.summary)):
        return False
    try:
        image = Path(file)
        if image.exists() and image.stat().st_mtime > paths.summary.stat().st_mtime:
            return False
        summary = json.loads(paths.summary.read_text("utf-8"))
        if "panoptic" in summary and not paths.panoptic.exists():
            return False
        # files of other formats may be an earlier run's, of other words
        if any(_entry(name) not in summary for name in formats):
            return False
        names = [entry["name"] for entry in summary["classes"]]
        same_model = {**summary["model"], "device": ""} == {**model, "device": ""}
        return names == list(class_names) and summary["file"] == file and same_model
    except (OSError, ValueError, KeyError, TypeError):  # no JSON of ours
        return False


def _unwritable(folder: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(f"cannot write results to {str(folder)!r} ({reason}); give another --output")
