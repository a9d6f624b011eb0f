"""Which images a data set has, and which label map belongs to which.

Names are compared in Unicode's composed form, since archives made on a Mac hold accents as letters
of their own; endings without regard to case.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from ovseg.data.label_maps import LOSSY
from ovseg.errors import UserError
from ovseg.utils.counting import counted
from ovseg.utils.images import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFiles:
    """The images of a data set.

    Attributes:
        source: a folder, or a text file with a path a line, relative to that file's folder.
        ending: of the images in a folder, without its dot; "": any that images have.
        hint: ends messages; says what to correct.
    """

    source: Path
    ending: str
    hint: str

    @property
    def told(self) -> str:
        """Where they are looked for, for messages."""
        ending = f" (.{self.ending})" if self.ending and self.source.is_dir() else ""
        return f"in {self.source}{ending}"

    def paths(self) -> list[Path]:
        """All of them, of a folder by name, of a list in its order.

        Raises:
            UserError: there are none.
        """
        if self.source.is_dir():
            return list(files_by_stem(self.source, self.ending, self.hint).values())
        return read_paths(self.source, self.hint)

    def find(self, name: str) -> Path:
        """The image that a JSON file calls ``name``: maybe with folders of another machine.

        Returns:
            Its path; where it is not there, the path that it should have.
        """
        parts = PurePosixPath(name.replace("\\", "/"))
        found = self._by_name.get(normal(parts.as_posix())) or self._by_name.get(normal(parts.name))
        folder = self.source if self.source.is_dir() else self.source.parent
        return found or folder / parts

    @cached_property
    def _by_name(self) -> dict[str, Path]:
        if not self.source.is_dir():
            paths = read_paths(self.source, self.hint)
            names = Counter(normal(path.name) for path in paths)
            # a bare name means an image only where no other has it
            found = {normal(p.name): p for p in paths if names[normal(p.name)] == 1}
            for path in paths:
                with suppress(ValueError):  # it lies elsewhere
                    inside = path.relative_to(self.source.parent)
                    found[normal(inside.as_posix())] = path
            return found
        return {
            normal(Path(root, name).relative_to(self.source).as_posix()): Path(root, name)
            for root, _, names in os.walk(self.source)
            for name in names
        }


def normal(name: str) -> str:
    """``name`` with composed accents, as names are compared."""
    return unicodedata.normalize("NFC", name)


def files_by_stem(
    folder: Path, ending: str, hint: str, suffix: str = "", empty_ok: bool = False
) -> dict[str, Path]:
    """The files of a folder that have an ending, in any case, by normal name.

    Args:
        folder: only what lies directly in it.
        ending: without its dot; "": any that images have.
        hint: ends messages.
        suffix: of the name before the ending; it is cut off, and names without it are left out.
        empty_ok: whether there may be none.

    Raises:
        UserError: there are none, or two have one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        wanted = _ending(path.suffix) == _ending(ending) if ending else _is_image(path)
        if not wanted or path.name.startswith("."):
            continue
        stem = normal(path.stem)
        if not stem.endswith(suffix):
            continue
        stem = stem.removesuffix(suffix)
        if stem in found:
            way_out = "rename or remove one" + ("" if ending else ", or give image_ext")
            raise UserError(f"{found[stem]} and {path} have one name; {way_out}")
        found[stem] = path
    if not found and not empty_ok:
        kind = f"{suffix}.{ending} files" if ending else "images"
        raise UserError(f"no {kind} in {folder}{_instead(folder)}; {hint}")
    return found


def _is_image(path: Path) -> bool:
    """Whether a file has an ending that images have."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def _ending(suffix: str) -> str:
    """The ending that a file has by its suffix; some have two ways to write it."""
    ending = suffix.lower().lstrip(".")
    return {"jpeg": "jpg", "tiff": "tif"}.get(ending, ending)


def _instead(folder: Path) -> str:
    """What lies in the folder, and the key that reads it."""
    endings = Counter(path.suffix.lower() for path in folder.iterdir() if path.is_file())
    if not endings:
        folders = sum(path.is_dir() for path in folder.iterdir())
        return f" (it holds {counted(folders, 'folder')} alone)" if folders else " (it is empty)"
    said = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in
                     endings.most_common(3))  # fmt: skip
    reads = {
        ".txt": "polygons of YOLO are read by the key yolo",
        ".json": "annotations in one COCO file are read by the key coco_json",
    }
    return f" (there are {said}" + "".join(
        f"; {text}" for ending, text in reads.items() if ending in endings
    ) + ")"  # fmt: skip


def read_paths(file: Path, hint: str) -> list[Path]:
    """The paths that a text file lists, one a line; blank lines do not count.

    Raises:
        UserError: it lists none, cannot be read, or none of its files is there.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"list of files {file} cannot be read ({error}); {hint}") from error
    paths = [file.parent / line.strip() for line in lines if line.strip()]
    if not paths:
        raise UserError(f"list of files {file} is empty; {hint}")
    if not any(path.exists() for path in paths):
        raise UserError(
            f"list of files {file}: none of its {len(paths)} files is there, {paths[0]} first; "
            "paths are absolute or relative to the folder of the list"
        )
    return paths


def images_by_stem(images: ImageFiles) -> dict[str, Path]:
    """The images by normal name, for labels that are found by it.

    Raises:
        UserError: two images have one name.
    """
    found: dict[str, Path] = {}
    for path in images.paths():
        other = found.setdefault(normal(path.stem), path)
        if other != path:
            raise UserError(
                f"{other} and {path} have one name and would share a label file; give labels as a "
                "list of files too, in the order of the images"
            )
    return found


@dataclass(frozen=True)
class LabelFiles:
    """The label maps or colour masks of a data set.

    Attributes:
        source: a folder, or a text file with a path a line in the order of the images' list.
        ending: of the files in a folder, without its dot.
        suffix: what their names have after those of the images.
    """

    source: Path
    ending: str
    suffix: str

    def pairs(self, images: ImageFiles) -> list[tuple[Path, Path]]:
        """Image and label map of each; images without a label map in a folder are left out.

        Of a label map without an image the image's path is where it should be.

        Raises:
            UserError: nothing fits.
        """
        if not self.source.is_dir():
            paths, labels = images.paths(), read_paths(self.source, images.hint)
            if images.source.is_dir() or len(paths) != len(labels):
                raise UserError(
                    f"{self.source} lists {len(labels)} label maps; images must be a list of as "
                    f"many, line by line, and {images.source} holds {len(paths)}"
                )
            check_lossless(labels)
            return list(zip(paths, labels, strict=True))
        by_stem = images_by_stem(images)
        found = files_by_stem(self.source, self.ending, images.hint, self.suffix)
        if not by_stem.keys() & found.keys():
            raise UserError(
                f"no file in {self.source} has the name of one {images.told}"
                f"{self._seeming_suffix(by_stem)}; {images.hint}, or list both in text files, line "
                "by line"
            )
        lacking = len(by_stem.keys() - found.keys())
        if lacking:
            logger.info("%s: %d images have no label map and are left out", images.source, lacking)
        if images.source.is_dir():
            suffixes = {path.suffix for path in by_stem.values()}
            ending = suffixes.pop() if len(suffixes) == 1 else ".*"
            return [
                (by_stem.get(stem, images.source / f"{stem}{ending}"), found[stem])
                for stem in sorted(found)
            ]
        return [(path, found[stem]) for stem, path in by_stem.items() if stem in found]

    def _seeming_suffix(self, images: Iterable[str]) -> str:
        """A hint, where names of label maps begin as those of images do."""
        stems = files_by_stem(self.source, self.ending, "", empty_ok=True)
        for stem in sorted(images):
            longer = [name for name in stems if name.startswith(stem) and name != stem]
            if len(longer) == 1:
                return f" (label_suffix: {longer[0].removeprefix(stem)!r} would fit {longer[0]!r})"
        return ""


def check_lossless(paths: Iterable[Path]) -> None:
    """Refuse label maps with an ending of lossy images.

    Raises:
        UserError: names the first.
    """
    for path in paths:
        if path.suffix.lower().lstrip(".") in LOSSY:
            raise UserError(
                f"label map {path}: {path.suffix} loses what is written into it, labels change; "
                "write PNG or TIFF"
            )
