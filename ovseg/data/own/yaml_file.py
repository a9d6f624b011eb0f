"""Reading the yaml file of a data set, and the plain values in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ovseg.errors import UserError
from ovseg.utils.io import user_path
from ovseg.utils.yaml_text import check_yaml


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which yaml silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            key = self.construct_object(key_node)  # 1 and 0x1 are one number
            if (type(key), key) in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"{key!r} is there twice, line {line}")
            seen.add((type(key), key))
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> dict[Any, Any]:
    """The mapping that a yaml file holds.

    Raises:
        UserError: it cannot be read, is no yaml, has a key twice, or holds something else.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        check_yaml(text)
        content = yaml.load(text, _Loader)
    except OSError as error:
        raise UserError(
            f"data set file {str(file)!r} cannot be read ({error.strerror}); check the path"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid yaml ({error}); correct it at that place") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: describes no data set; it needs lines such as 'name: harbour'")
    return content


def as_text(file: Path, key: str, value: Any) -> str:
    """A text, without blanks around it.

    Raises:
        UserError: it is something else, or empty.
    """
    if not isinstance(value, str) or not value.strip():
        # yaml reads no, off, 12 ... as something else than a word
        raise UserError(f"{file}: {key} {value!r} is no text; write it in quotes")
    return value.strip()


def as_path(file: Path, key: str, value: Any) -> Path:
    """A path that is there; relative ones lie beside the yaml file.

    Raises:
        UserError: it is not there.
    """
    path = (file.parent / user_path(as_text(file, key, value))).resolve()
    if not path.exists():
        raise UserError(f"{file}: {key} {str(path)!r} does not exist; correct the path")
    return path


def as_words(file: Path, entries: Sequence[Any]) -> tuple[tuple[str, ...], ...]:
    """Of each class its words, a name and maybe synonyms.

    Raises:
        UserError: a class has no word, something is no text, or a word stands for two classes.
    """
    lists = [entry if isinstance(entry, list) else [entry] for entry in entries]
    first_of: dict[str, int] = {}
    for number, names in enumerate(lists, start=1):
        if not names:
            raise UserError(f"{file}: class {number} has no word; give it one or remove it")
        for name in names:
            word = " ".join(as_text(file, f"class {number},", name).split())
            key = word.casefold()  # CLIP reads lower case and single blanks
            if key in first_of:
                raise UserError(
                    f"{file}: the word {word!r} stands for classes {first_of[key]} and {number}; "
                    "give each word once (case and blanks make no difference)"
                )
            first_of[key] = number
    return tuple(tuple(name.strip() for name in names) for names in lists)
