"""Data sets of the user's own, described by a small yaml file.

The words of a class are its name and its synonyms. An evaluation lets all of them compete, and a
pixel has the class of its best word; training uses the name alone. For example::

    name: harbour
    images: photos           # folders, beside this file
    labels: label_maps       # a pixel's value is the place of its class in the list, from 0
    ignore_value: 255        # the value of pixels that count nowhere; 255 when left out
    image_ext: jpg           # endings of the files; jpg and png when left out
    label_ext: png           # png or tif, grey or palette, of 8 or 16 bit
    classes:
      - sky
      - [boat, ship, ferry]  # a name and its synonyms

Of a COCO panoptic data set ``labels`` is the folder of its coloured PNG files, and
``panoptic_json: file.json`` names its json; without ``classes`` its categories are the classes.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from ovseg.data.class_lists import ClassList
from ovseg.data.datasets import dataset_classes, register_split
from ovseg.data.splits import Split
from ovseg.errors import UserError
from ovseg.vocabulary import Vocabulary

_KEYS = (
    "name", "images", "labels", "classes", "ignore_value", "image_ext", "label_ext", "panoptic_json"
)  # fmt: skip
_REQUIRED = ("name", "images", "labels")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which yaml silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, "a key is there twice", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class CustomSplit(Split):
    """A data set whose classes stand in the user's file.

    Attributes:
        words: of each class its name, then its synonyms.
    """

    words: tuple[tuple[str, ...], ...] = ()

    def classes(self) -> ClassList:
        """The names of the classes."""
        return ClassList(tuple(names[0] for names in self.words))


def register_custom(files: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Register the data sets that yaml files describe; anew those that are registered already.

    Must be called in every process that asks for them.

    Returns:
        Their names, in order.

    Raises:
        UserError: a file is missing, is no such description, or its name is another data set's.
    """
    return [_register(Path(file).expanduser()) for file in files]


def dataset_vocabulary(name: str) -> Vocabulary:
    """The classes of a data set, with the synonyms of one's own data sets."""
    words = MetadataCatalog.get(name).get("class_words")
    return Vocabulary.of(dataset_classes([name]) if words is None else words)


def _register(file: Path) -> str:
    description = _read(file)
    _check_keys(file, description)
    name = _text(file, "name", description["name"])
    if not re.fullmatch(r"[\w.-]*\w", name):
        raise UserError(f"{file}: name {name!r} may hold letters, digits, '_', '-' and '.' alone")
    panoptic = None
    if "panoptic_json" in description:
        panoptic = _beside(file, "panoptic_json", description["panoptic_json"])
    words = _words(file, description, panoptic)
    split = CustomSplit(
        name=name,
        images=str(_beside(file, "images", description["images"])),
        labels=str(_beside(file, "labels", description["labels"])),
        vocabulary="",
        ignore_label=_ignore_value(file, description.get("ignore_value", 255), len(words)),
        image_ext=_ending(file, "image_ext", description.get("image_ext", "jpg")),
        label_ext=_ending(file, "label_ext", description.get("label_ext", "png")),
        images_shared=True,  # photographs without a label map are none of its own
        hint=f"correct images, labels, image_ext or label_ext in {file}",
        words=words,
    )
    _forget(file, name)
    register_split(split, file.parent)
    MetadataCatalog.get(name).set(custom_file=str(file.resolve()), class_words=words)
    if panoptic is not None:
        categories = zip(_categories(panoptic), words, strict=True)
        MetadataCatalog.get(name).set(
            thing_classes=[entry[0] for category, entry in categories if category["isthing"]]
        )
        DatasetCatalog.remove(name)
        DatasetCatalog.register(name, lambda: _load_panoptic(file, split, panoptic))
    return name


def _forget(file: Path, name: str) -> None:
    if name not in DatasetCatalog.list():
        return
    if MetadataCatalog.get(name).get("custom_file") != str(file.resolve()):
        raise UserError(f"{file}: name {name!r} is another data set's; choose another name")
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def _read(file: Path) -> dict[str, Any]:
    try:
        description = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(
            f"data set file {str(file)!r} cannot be read ({error.strerror}); check the path"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid yaml ({error}); correct it at that place") from error
    if not isinstance(description, dict):
        raise UserError(f"{file}: describes no data set; it needs lines such as 'name: harbour'")
    return description


def _check_keys(file: Path, description: Mapping[Any, Any]) -> None:
    for key in description:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_KEYS)}"
            raise UserError(f"{file}: unknown key {key!r}; {hint}")
    required = _REQUIRED if "panoptic_json" in description else (*_REQUIRED, "classes")
    for key in required:
        if key not in description:
            raise UserError(f"{file}: key {key!r} is missing; add a line '{key}: ...'")
    if "panoptic_json" in description:
        for key in ("image_ext", "label_ext"):
            if key in description:
                raise UserError(f"{file}: with panoptic_json files are jpg and png; remove {key}")


def _text(file: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        # yaml reads no, off, 12 ... as something else than a word
        raise UserError(f"{file}: {key} {value!r} is no text; write it in quotes")
    return value.strip()


def _beside(file: Path, key: str, value: Any) -> Path:
    path = (file.parent / _text(file, key, value)).expanduser().resolve()
    if not path.exists():
        raise UserError(f"{file}: {key} {str(path)!r} does not exist; correct the path")
    return path


def _ending(file: Path, key: str, value: Any) -> str:
    return _text(file, key, value).lstrip(".")


def _ignore_value(file: Path, value: Any, num_classes: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise UserError(
            f"{file}: ignore_value {value!r} is no whole number from 0 to 65535; write 255 or 65535"
        )
    if value < num_classes:
        raise UserError(
            f"{file}: ignore_value {value} is the label of one of the {num_classes} classes; "
            "give another, such as 255 or 65535"
        )
    return value


def _words(
    file: Path, description: Mapping[str, Any], panoptic: Path | None
) -> tuple[tuple[str, ...], ...]:
    """Of each class its words, each word unique."""
    categories = [] if panoptic is None else [item["name"] for item in _categories(panoptic)]
    entries = description.get("classes", categories)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{file}: classes is no list of words or empty; add '- word' lines")
    if panoptic is not None and len(entries) != len(categories):
        raise UserError(
            f"{file}: classes has {len(entries)} entries, the categories of {panoptic} are "
            f"{len(categories)}; give as many, in that order, or leave classes out"
        )
    lists = [entry if isinstance(entry, list) else [entry] for entry in entries]
    first_of: dict[str, int] = {}
    for number, names in enumerate(lists, start=1):
        if not names:
            raise UserError(f"{file}: class {number} has no word; give it one or remove it")
        for name in names:
            word = " ".join(_text(file, f"class {number},", name).split())
            key = word.casefold()  # CLIP reads lower case and single blanks
            if key in first_of:
                raise UserError(
                    f"{file}: the word {word!r} stands for classes {first_of[key]} and {number}; "
                    "give each word once (case and blanks make no difference)"
                )
            first_of[key] = number
    return tuple(tuple(name.strip() for name in names) for names in lists)


def _categories(panoptic: Path) -> list[dict[str, Any]]:
    try:
        items = json.loads(panoptic.read_text(encoding="utf-8"))["categories"]
        categories: list[dict[str, Any]] = [
            {
                "id": int(item["id"]),
                "name": str(item["name"]),
                "isthing": bool(item.get("isthing", True)),
            }
            for item in items
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"panoptic_json {panoptic} is no COCO panoptic file ({error!r}); give one whose "
            "categories have an id and a name"
        ) from error
    name_of: dict[int, str] = {}
    for item in categories:
        number, name = item["id"], item["name"]
        if number in name_of:
            raise UserError(
                f"panoptic_json {panoptic}: categories {name_of[number]!r} and {name!r} have one "
                f"id, {number}; give each its own"
            )
        name_of[number] = name
    return categories


def _load_panoptic(file: Path, split: Split, panoptic: Path) -> list[dict[str, Any]]:
    """Dataset dicts whose ``segments`` give the label of each colour, see ``read_truth``, and
    ``crowds`` those of many objects each."""
    labels = {item["id"]: label for label, item in enumerate(_categories(panoptic))}
    try:
        examples: list[dict[str, Any]] = [
            {
                "file_name": str(Path(split.images, item["file_name"]).with_suffix(".jpg")),
                "sem_seg_file_name": str(Path(split.labels, item["file_name"])),
                "segments": {int(x["id"]): labels[x["category_id"]] for x in item["segments_info"]},
                "crowds": [int(x["id"]) for x in item["segments_info"] if x.get("iscrowd")],
                "ignore_label": split.ignore_label,
            }
            for item in json.loads(panoptic.read_text(encoding="utf-8"))["annotations"]
        ]
    except KeyError as error:
        raise UserError(
            f"data set {split.name}: {panoptic} lacks {error}, an entry or a category; mend it"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"data set {split.name}: the annotations of {panoptic} cannot be used ({error}); give "
            "those of a COCO panoptic file"
        ) from error
    if not examples:
        raise UserError(f"data set {split.name}: {panoptic} has no annotations; give another file")
    for key in ("file_name", "sem_seg_file_name"):
        if not os.path.isfile(examples[0][key]):
            raise UserError(
                f"data set {split.name}: {examples[0][key]} is missing; correct images or labels "
                f"in {file}"
            )
    return examples
