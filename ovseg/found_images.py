"""Which images a user means: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ovseg.errors import UserError
from ovseg.results.files import folders_of_results, holds_labels, is_result
from ovseg.utils.images import IMAGE_SUFFIXES
from ovseg.utils.io import user_path


@dataclass(frozen=True)
class FoundImages:
    """What :func:`find_images` found.

    Attributes:
        images: images, without repeats.
        errors: a line for each file, folder or pattern that gave none.
        others: other files of the folders, which are passed over, by suffix.
    """

    images: list[Path]
    errors: list[str]
    others: Counter[str] = field(default_factory=Counter)

    def passed_over(self) -> str:
        """``2 other files (txt, xmp)``; empty if there are none."""
        count = self.others.total()
        kinds = ", ".join(sorted(suffix[1:] or "without suffix" for suffix in self.others))
        return f"{count} other file{'s' * (count > 1)} ({kinds})" if count else ""


def find_images(patterns: Sequence[str], recursive: bool = False) -> FoundImages:
    """Expand files, folders and patterns.

    Args:
        patterns: as a user gives them.
        recursive: take the images in the folders of a folder too.

    Raises:
        UserError: there is nothing to expand, or something is empty.
    """
    if not patterns:
        raise UserError("no input; give images, folders or patterns such as 'photos/*.jpg'")
    found: dict[Path, Path] = {}
    result = FoundImages([], [])
    for pattern in patterns:
        if not pattern.strip():  # of a shell's variable that is not set
            raise UserError(f"input {pattern!r} is empty; give images, folders or patterns")
        path = user_path(pattern)
        if path.is_dir():
            paths, others = _images_in(path, recursive)
            result.others.update(others)
            problem = f"input folder {pattern!r} holds no images ({_known_suffixes()})"
            inside = not recursive and any(entry.is_dir() for entry in path.iterdir())
            problem += "; --recursive looks into its folders" if inside else "; check the path"
        elif path.exists():  # before the pattern: a name may hold brackets
            paths, problem = [path], ""
        else:
            paths = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
            paths = [match for match in paths if match.is_file()]
            problem = f"input {pattern!r}: no such file, folder or pattern match; check the path"
        if not paths:
            result.errors.append(problem)
        found.update((match.resolve(), match) for match in paths if match.resolve() not in found)
    result.images.extend(found.values())
    return result


def _images_in(folder: Path, recursive: bool) -> tuple[list[Path], Counter[str]]:
    """Its images, and its other files by suffix.

    Hidden files and folders, and what earlier runs wrote, are left out.
    """
    images: list[Path] = []
    others: Counter[str] = Counter()
    for root, folders, names in os.walk(folder):
        if holds_labels(names):
            folders.clear()
            continue
        inside = [name for name in folders if not name.startswith(".") and recursive]
        ours = folders_of_results(Path(root), names) if inside else set()
        folders[:] = sorted(set(inside) - ours)
        for file in (Path(root, name) for name in sorted(names) if not name.startswith(".")):
            # results of an earlier run with the same folder as --output are no inputs
            if is_result(file) or not file.is_file():
                continue
            if file.suffix.lower() in IMAGE_SUFFIXES:
                images.append(file)
            else:
                others[file.suffix.lower()] += 1
    return images, others


def _known_suffixes() -> str:
    return ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
