"""Class names and colours in files that annotation tools write beside their ground truth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ovseg.data.vocabulary import read_vocabulary
from ovseg.errors import UserError
from ovseg.utils.io import user_path

from .yaml_file import as_text, read_yaml

# what CVAT calls pixels without an annotation
_UNLABELLED = "background"


def read_class_file(file: Path, value: str) -> list[Any] | dict[str, list[str]]:
    """The classes that ``classes: FILE`` names.

    Args:
        file: the yaml file of the data set, whose folder relative paths lie in.
        value: the ``data.yaml`` of a YOLO data set, or what ``--vocabulary`` takes: a text file
            with a class a line, a JSON file, or the name of a built-in list.

    Returns:
        What ``classes`` may be in the yaml file itself.

    Raises:
        UserError: there is no such file or list, or it names no classes.
    """
    path = (file.parent / user_path(value)).resolve()
    if path.suffix.lower() in {".yaml", ".yml"}:
        return _yolo_names(path)
    try:
        text = as_text(file, "classes", value)
        vocabulary = read_vocabulary(path if os.path.isfile(path) else text)
    except UserError as error:
        raise UserError(f"{file}: classes, {error}") from error
    words_of_class = map(list, vocabulary.words_of_class)
    return dict(zip(vocabulary.names, words_of_class, strict=True))


def _yolo_names(path: Path) -> list[Any]:
    """``names`` of a data.yaml: a list, or a mapping from 0, 1, ... on."""
    names = read_yaml(path).get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise UserError(
                f"{path}: names must count from 0 without a gap; name the numbers by values in "
                "place of classes"
            )
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} has no names, as the data.yaml of a YOLO data set has")
    return names


def read_label_map(path: Path) -> tuple[dict[str, str], str | None]:
    """The ``labelmap.txt`` of CVAT's "Segmentation mask": lines ``name:r,g,b:parts:actions``.

    Returns:
        Name by colour, ``rgb(1,2,3)``, and the colour of pixels without an annotation.

    Raises:
        UserError: it is no such file, or two names have one colour.
    """
    colours: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"colors {path} cannot be read ({error}); check the path") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        colour = f"rgb({rest.partition(':')[0].strip()})"
        if not name.strip() or colour == "rgb()":
            raise UserError(
                f"colors {path}, line {number}: {line.strip()[:60]!r} is no label of CVAT; write "
                "'name:red,green,blue::'"
            )
        if colour in colours:
            raise UserError(
                f"colors {path}: classes {colours[colour]!r} and {name!r} have one colour, "
                f"{colour}; give each its own"
            )
        colours[colour] = name.strip()
    if not colours:
        raise UserError(f"colors {path} names no colours; give the labelmap.txt of CVAT")
    unlabelled = next((c for c, name in colours.items() if name.lower() == _UNLABELLED), None)
    return {c: name for c, name in colours.items() if c != unlabelled}, unlabelled
