"""Where the results of pictures go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovseg.errors import UserError
from ovseg.utils.images import IMAGE_SUFFIXES
from ovseg.utils.io import make_folder


@dataclass(frozen=True)
class ResultPaths:
    """Where the three files of one picture go."""

    overlay: Path
    labels: Path
    summary: Path

    @classmethod
    def beside(cls, overlay: Path, name: str) -> ResultPaths:
        """``NAME_labels.png`` and ``NAME.json`` in the overlay's folder."""
        return cls(overlay, overlay.parent / f"{name}_labels.png", overlay.parent / f"{name}.json")

    def all(self) -> tuple[Path, Path, Path]:
        """The three paths."""
        return self.overlay, self.labels, self.summary


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
        if any(path.resolve() in taken for path in paths[0].all()):
            raise UserError(f"--output {output!r} would overwrite the input; give another name")
    else:
        paths = []
        for path in inputs:
            paths.append(_free_paths(target, path, taken))
            taken.update(result.resolve() for result in paths[-1].all())
    make_folder(paths[0].overlay.parent, "--output")
    return paths


def _free_paths(folder: Path, picture: Path, taken: set[Path]) -> ResultPaths:
    # photographs stay JPEG; drawings and everything else would show its artefacts
    suffix = ".jpg" if picture.suffix.lower() in {".jpg", ".jpeg"} else ".png"
    lower = {str(path).casefold() for path in taken}  # some file systems ignore case
    name, number = picture.stem, 1
    while True:
        paths = ResultPaths.beside(folder / f"{name}_overlay{suffix}", name)
        if not any(str(path.resolve()).casefold() in lower for path in paths.all()):
            return paths
        number += 1
        name = f"{picture.stem}_{number}"
