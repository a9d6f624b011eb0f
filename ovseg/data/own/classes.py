"""The classes of a data set: their words, and what stands for them in the ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ovseg.errors import UserError

from .class_files import read_class_file, read_label_map
from .coco_instances import read_instances
from .coco_panoptic import read_categories
from .colours import parse_colour, read_colours_key
from .label_values import read_values
from .labelled import read_manifest
from .yaml_file import as_path, as_text, as_words


class OwnClasses:
    """The classes, and what stands for them in the ground truth.

    Attributes:
        names: of the classes.
        words: of each class the words that it is found by, mostly its name first.
        label_of: number, colour or category id -> class, or the ignored label.
        ignore_label: label of pixels that count nowhere.
        background: label of pixels without an annotation.
    """

    def __init__(self, file: Path, form: str, content: Mapping[str, Any]) -> None:
        """The classes of a yaml file.

        Args:
            file: its path.
            form: of the ground truth, see :class:`ovseg.data.own.description.Description`.
            content: of the file, its keys checked.

        Raises:
            UserError: they cannot be used.
        """
        content = _with_files_read(file, form, content)
        codes, entries = _entries(file, form, content)
        self.words = as_words(file, [*entries.values()] if isinstance(entries, dict) else entries)
        names = entries if isinstance(entries, dict) else (words[0] for words in self.words)
        self.names = tuple(as_text(file, "classes", name).strip() for name in names)
        self.label_of = {code: label for label, code in enumerate(codes)}
        background = content.get("background") if form != "colors" else None
        if background is not None:
            self.words, background = _with_background(file, self.words, background)
        self.names += tuple(words[0] for words in self.words[len(self.names) :])
        count = len(self.words)
        self.ignore_label = 255 if count <= 255 else 65535
        if form in {"classes", "panoptic_json"}:
            value = content.get("ignore_value", self.ignore_label)
            self.ignore_label = _ignore_value(file, value, self.words)
        elif form == "colors" and content.get("ignore_value") is not None:
            self._ignore(file, parse_colour(file, "ignore_value", content["ignore_value"]), content)
        elif form == "values" and ("ignore_value" in content or 255 not in self.label_of):
            value = content.get("ignore_value", 255)
            self._ignore(file, _whole_number(file, value), content)
        self.background = self.ignore_label if background is None else background

    def _ignore(self, file: Path, code: int, content: Mapping[str, Any]) -> None:
        if code in self.label_of:
            name = self.words[self.label_of[code]][0]
            raise UserError(
                f"{file}: ignore_value {content['ignore_value']!r} is that of class {name!r}; "
                "give another, or leave ignore_value out"
            )
        self.label_of[code] = self.ignore_label


def _with_files_read(file: Path, form: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """``content`` with the classes and colours that it leaves to other files."""
    if isinstance(content.get("classes"), str):
        return {**content, "classes": read_class_file(file, content["classes"])}
    if form != "colors":
        return content
    unlabelled = None
    if isinstance(content["colors"], str):
        colours, unlabelled = read_label_map(as_path(file, "colors", content["colors"]))
        content = {"ignore_value": unlabelled, **content, "colors": colours}
    if "background" in content:
        if unlabelled is None:
            raise UserError(
                f"{file}: background names the label 'background' of CVAT's labelmap.txt, which is "
                "not there; name its colour under colors"
            )
        colours = {**content["colors"], unlabelled: content["background"]}
        content = {**content, "colors": colours, "ignore_value": None}
    return content


def _entries(
    file: Path, form: str, content: Mapping[str, Any]
) -> tuple[Iterable[int], list[Any] | dict[str, Any]]:
    """The codes of the classes in the ground truth, and their words, with or without a name."""
    if form == "colors":
        colours = read_colours_key(file, content["colors"])
        return colours, list(colours.values())
    if form == "labelled":
        manifest = read_manifest(as_path(file, form, content[form]))
        classes = manifest["classes"]
        return range(len(classes)), dict(zip(manifest["names"], classes, strict=True))
    categories: dict[int, str] = {}
    if form == "coco_json":
        categories = dict(read_instances(as_path(file, form, content[form])).categories)
    if form == "panoptic_json":
        panoptic = as_path(file, form, content[form])
        categories = {item["id"]: item["name"] for item in read_categories(panoptic)}
    if "values" in content:
        values = read_values(file, content["values"])
        for value in values if form == "coco_json" else ():
            if value not in categories:
                known = ", ".join(f"{number} {name}" for number, name in categories.items())
                raise UserError(
                    f"{file}: values, {content[form]} has no category {value}; it has {known}"
                )
        return values, list(values.values())
    entries = content.get("classes", list(categories.values()))
    if not isinstance(entries, list | dict) or not entries:
        raise UserError(f"{file}: classes is no list of words or empty; add '- word' lines")
    if categories and len(entries) != len(categories):
        raise UserError(
            f"{file}: classes has {len(entries)} entries, the categories of {content[form]} are "
            f"{len(categories)}; give as many, in that order, or leave classes out"
        )
    return categories or range(len(entries)), entries


def _with_background(
    file: Path, words: tuple[tuple[str, ...], ...], background: Any
) -> tuple[tuple[tuple[str, ...], ...], int]:
    """The classes with that of the background, and its label."""
    if isinstance(background, str):
        for label, names in enumerate(words):
            if background.strip().casefold() in {name.casefold() for name in names}:
                return words, label
    return as_words(file, [*map(list, words), background]), len(words)


def _whole_number(file: Path, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise UserError(
            f"{file}: ignore_value {value!r} is no whole number from 0 to 65535; write 255 or 65535"
        )
    return value


def _ignore_value(file: Path, value: Any, words: tuple[tuple[str, ...], ...]) -> int:
    value = _whole_number(file, value)
    if value < len(words):
        named = ", ".join(f"{number}: {names[0]}" for number, names in enumerate(words[:3], 1))
        more = ", ..." if len(words) > 3 else ""
        other = 255 if len(words) <= 255 else 65535
        raise UserError(
            f"{file}: ignore_value {value} is the label of one of the {len(words)} classes, which "
            f"count from 0; give another, such as {other}, or name the values themselves: "
            f"values: {{{named}{more}}} in place of classes"
        )
    return value
