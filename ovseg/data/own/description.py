"""The yaml file of a data set, read and checked; detectron2 is not needed for it.

The words of a class are its name and its synonyms. An evaluation lets all of them compete, and a
pixel has the class of its best word; training uses the name alone. For example::

    name: harbour
    images: photos           # a folder beside this file, or a text file with a path a line
    labels: label_maps       # likewise; a pixel's value is the place of its class, from 0
    ignore_value: 255        # the value of pixels that count nowhere; 255 when left out
    image_ext: jpg           # ending of the images; any that images have when left out
    label_ext: png           # png or tif, grey or palette, of 8 or 16 bit; png when left out
    classes:
      - sky
      - [boat, ship, ferry]  # a name and its synonyms

docs/own-data.md shows the other forms of ground truth.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.data.label_maps import LOSSY
from ovseg.errors import UserError
from ovseg.utils.io import read_json
from ovseg.vocabulary import Vocabulary

from .classes import OwnClasses
from .coco_instances import describe_json
from .image_files import ImageFiles
from .yaml_file import as_path, as_text, read_yaml

# the keys of every form of ground truth: those it must have, and those it may have
_FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "labelled": (("labelled",), ("min_score",)),
    "coco_json": (("coco_json",), ("classes", "values", "background", "strict", "image_ext")),
    "panoptic_json": (("labels", "panoptic_json"), ("classes", "ignore_value")),
    "yolo": (
        ("yolo",),
        ("classes", "values", "background", "strict", "image_ext", "label_suffix"),
    ),
    "colors": (
        ("labels", "colors"),
        ("background", "ignore_value", "strict", "image_ext", "label_ext", "label_suffix"),
    ),
    "values": (
        ("labels", "values"),
        ("ignore_value", "strict", "image_ext", "label_ext", "label_suffix"),
    ),
    "classes": (
        ("labels", "classes"),
        ("ignore_value", "image_ext", "label_ext", "label_suffix"),
    ),
    # images to segment
    "images": (("classes",), ("image_ext",)),
}
_ALWAYS = ("name", "images")
_KEYS = (*_ALWAYS, *dict.fromkeys(key for keys in _FORMS.values() for part in keys for key in part))


@dataclass(frozen=True)
class Description:
    """What the yaml file of a data set says, all of it checked.

    Attributes:
        file: the yaml file.
        name: of the data set.
        form: the key that its form of ground truth is known by; "images": there is none.
        images: the images.
        truth: folder, list of files or JSON file of the ground truth; None: there is none.
        names: of the classes.
        words: of each class the words that it is found by, mostly its name first.
        label_of: number, colour or category id in the ground truth -> class, or the ignored label.
        ignore_label: label of pixels that count nowhere, in the label maps that are made of it.
        background: label of pixels without an annotation.
        strict: whether what no class is named for is refused.
        names_all: whether ``classes`` names whatever there is, so that another code is a mistake.
        label_ext, label_suffix: of the names of label files.
        panoptic: the JSON file of a COCO panoptic data set.
        min_score: of an output of ``ovseg label``: scores below it are ignored.
    """

    file: Path
    name: str
    form: str
    images: ImageFiles
    truth: Path | None
    names: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    label_of: Mapping[int, int]
    ignore_label: int
    background: int
    strict: bool
    names_all: bool
    label_ext: str
    label_suffix: str
    panoptic: Path | None = None
    min_score: float = 0.0

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes, as what is looked for."""
        return Vocabulary(self.names, self.words)


def read_description(file: Path) -> Description:
    """Read the yaml file of a data set.

    Raises:
        UserError: something in it is wrong; names the file, the key and the way out.
    """
    content = read_yaml(file)
    form = _check_keys(file, content)
    name = as_text(file, "name", content["name"])
    if not re.fullmatch(r"[\w.-]*\w", name):
        raise UserError(f"{file}: name {name!r} may hold letters, digits, '_', '-' and '.' alone")
    hint = f"correct images, labels, image_ext or label_ext in {file}"
    if form == "labelled":
        hint = "label again, with --copy-images where the images do not stay where they are"
    key = "labelled" if form == "labelled" else "images"
    source = as_path(file, key, content[key])
    images = ImageFiles(source, _image_ending(file, content, source), hint)
    label_ext = as_text(file, "label_ext", content.get("label_ext", "png")).lstrip(".")
    if label_ext.lower() in LOSSY:
        raise UserError(
            f"{file}: label_ext {label_ext!r} loses what is written into it, labels change; "
            "write PNG or TIFF"
        )
    strict = content.get("strict", False)
    if not isinstance(strict, bool):
        raise UserError(f"{file}: strict {strict!r} is neither true nor false; write one of them")
    classes = OwnClasses(file, form, content)
    return Description(
        file=file,
        name=name,
        form=form,
        images=images,
        truth=_truth(file, form, content),
        names=classes.names,
        words=classes.words,
        label_of=classes.label_of,
        ignore_label=classes.ignore_label,
        background=classes.background,
        strict=strict,
        names_all="classes" in content,
        label_ext=label_ext,
        label_suffix=as_text(file, "label_suffix", content["label_suffix"])
        if "label_suffix" in content
        else "",
        panoptic=as_path(file, form, content[form]) if form == "panoptic_json" else None,
        min_score=_share(file, "min_score", content.get("min_score", 0.0)),
    )


def _image_ending(file: Path, content: Mapping[str, Any], source: Path) -> str:
    """The ending of the images; "": any. Among label maps images must be told apart by it."""
    if "image_ext" in content:
        return as_text(file, "image_ext", content["image_ext"]).lstrip(".")
    labels = content.get("labels")
    return "jpg" if labels is not None and as_path(file, "labels", labels) == source else ""


def _check_keys(file: Path, content: Mapping[Any, Any]) -> str:
    """The form of ground truth."""
    for key in content:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_KEYS)}"
            raise UserError(f"{file}: unknown key {key!r}; {hint}")
    form = next((key for key in [*_FORMS][:6] if key in content), None)
    form = form or ("classes" if "labels" in content else "images")
    required, optional = _FORMS[form]
    # an image's row says where it is
    always = ("name",) if form == "labelled" else _ALWAYS
    allowed = (*always, *required, *optional)
    for key in content:
        if key not in allowed:
            reason = (
                f"with {form} there is no {key}"
                if form != "images"
                else (f"{key} says something of labels, and there are none")
            )
            raise UserError(f"{file}: {reason}; remove {key}")
    if {"classes", "values"} <= content.keys():
        raise UserError(f"{file}: classes and values are both there; keep one of them")
    for key in (*always, *required):
        if key not in content and not (key == "classes" and "values" in content):
            raise UserError(f"{file}: key {key!r} is missing; add a line '{key}: ...'")
    if form == "yolo" and not {"classes", "values"} & content.keys():
        raise UserError(f"{file}: key 'classes' is missing; add the names in YOLO's order")
    return form


def _truth(file: Path, form: str, content: Mapping[str, Any]) -> Path | None:
    """Where the ground truth lies."""
    if form == "images":
        return None
    key = form if form in {"coco_json", "yolo", "labelled"} else "labels"
    path = as_path(file, key, content[key])
    if key == "coco_json" and path.is_dir():
        raise UserError(f"{file}: coco_json {str(path)!r} is a folder; give the JSON file in it")
    if key == "labels" and path.suffix.lower() == ".json":
        found = describe_json(read_json(path, object, "give a folder of label maps"))
        raise UserError(f"{file}: labels {str(path)!r} is no folder of label maps but {found}")
    if key == "labelled" and not path.is_dir():
        raise UserError(f"{file}: labelled {str(path)!r} is no folder; give that of ovseg label")
    if key == "yolo" and not path.is_dir():
        raise UserError(f"{file}: yolo {str(path)!r} is no folder; give that of the text files")
    if form == "panoptic_json" and not path.is_dir():
        raise UserError(f"{file}: labels {str(path)!r} is no folder; give that of the PNG files")
    return path


def _share(file: Path, key: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise UserError(f"{file}: {key} {value!r} is no number in 0..1; write for instance 0.5")
    return float(value)
