"""Reading a config file and KEY VALUE pairs into a config, with errors a user can act on.

The config may be detectron2's or the plain one of :mod:`ovseg.config.quick`.
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ovseg.errors import UserError
from ovseg.utils.io import user_path
from ovseg.utils.yaml_text import check_yaml

from .overrides import NAME_LISTS, split_names

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

# as NAME_LISTS for files, whose names may hold blanks
_FILE_LISTS = frozenset({"DATASETS.CUSTOM"})

# how the published yaml files write their training sizes: an expression for eval
_EVAL_TAG = "tag:yaml.org,2002:python/object/apply:eval"
_MOST_SIZES = 1000
_SIZES = re.compile(
    r"\[\s*int\(\s*x\s*\*\s*([\d.]+)\s*\*\s*(\d+)\s*\)\s*for\s+x\s+in\s+range\("
    r"\s*(\d+)\s*,\s*(\d+)\s*\)\s*\]"
)


def _construct_sizes(loader: yaml.SafeLoader, node: yaml.Node) -> list[int]:
    """Work out ``[int(x * 0.1 * 640) for x in range(5, 21)]`` without evaluating code."""
    value = (
        loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else []
    )
    match = _SIZES.fullmatch(str(value[0]).strip()) if len(value) == 1 else None
    if match is None:
        raise UserError(
            f"the config asks to evaluate {value}, which is refused: write the numbers themselves"
        )
    step, size, first, last = match.groups()
    if int(last) - int(first) > _MOST_SIZES:
        raise UserError(
            f"the config asks for {int(last) - int(first)} sizes of images, more than "
            f"{_MOST_SIZES}: write the numbers themselves"
        )
    return [int(x * float(step) * int(size)) for x in range(int(first), int(last))]


# the loader is everybody's, and so changed by one thread at a time
_loader_changed = threading.Lock()


@contextmanager
def _published_sizes() -> Iterator[None]:
    """Let yaml read those expressions, which its safe loader refuses, while a config is read."""
    with _loader_changed:
        yaml.SafeLoader.add_constructor(_EVAL_TAG, _construct_sizes)
        try:
            yield
        finally:
            del yaml.SafeLoader.yaml_constructors[_EVAL_TAG]


def flatten(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All keys of a config, ``MODEL.WEIGHTS``, with their values, groups among them."""
    for key, value in node.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")


def _check_files(path: Path, seen: frozenset[Path] = frozenset()) -> None:
    """Look at a yaml file and its bases before they are built; what is missing is told later."""
    if path in seen or not path.is_file():
        return
    node = check_yaml(path.read_text(encoding="utf-8"))
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == "_BASE_" and isinstance(value, yaml.ScalarNode):
            _check_files(path.parent / user_path(value.value), seen | {path})


def merge_file(cfg: CfgNode, path: Path, known: dict[str, Any]) -> None:
    """Merge a yaml file, and those that its ``_BASE_`` names.

    Args:
        cfg: is changed.
        path: of the file.
        known: see :func:`flatten`; for hints.

    Raises:
        UserError: a file is missing or broken, has an unknown key, or a value of a wrong type.
    """
    try:
        _check_files(path)
        with _published_sizes():
            # no arbitrary Python objects from a yaml file
            cfg.merge_from_file(str(path), allow_unsafe=False)
        _refuse_none(cfg, known)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: its _BASE_ {error.filename!r} does not exist; correct the _BASE_ line"
        ) from error
    except (RecursionError, IsADirectoryError) as error:
        raise UserError(f"{path}: its _BASE_ leads to no file; correct the _BASE_ line") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid yaml ({error}); correct it at that place") from error
    except KeyError as error:
        match = re.search(r"config key: (\S+)", str(error))
        key = match.group(1).rstrip("'\"") if match else str(error)
        raise UserError(f"{path}: {_unknown_key(key, known)}") from error
    except (TypeError, AttributeError) as error:
        raise UserError(f"{path}: holds no config; it needs 'KEY: value' lines") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text ({error}); give a yaml file") from error
    except (ValueError, AssertionError) as error:
        # a group in place of a value would be printed with all that is in it
        reason = re.sub(r"with values \(.*\) for", "for", str(error), flags=re.DOTALL)
        raise UserError(f"{path}: {reason}; correct the value") from error


def _refuse_none(cfg: CfgNode, known: dict[str, Any]) -> None:
    """yacs takes None, yaml's null, for whatever type; no key of ours means something by it."""
    for key, value in flatten(cfg):
        if value is None and known.get(key) is not None:
            raise ValueError(f"config key {key} has no value")


def merge_opts(cfg: CfgNode, opts: Sequence[str], known: dict[str, Any]) -> None:
    """Merge KEY VALUE pairs; see :func:`ovseg.config.files.setup_cfg`.

    Args:
        cfg: is changed.
        opts: the pairs.
        known: see :func:`flatten`.

    Raises:
        UserError: an unknown key, or a value of a wrong type.
    """
    for opt in opts[::2]:
        if opt.startswith("--"):
            raise UserError(
                f"{opt!r} stands after KEY VALUE pairs; put options before the first KEY"
            )
        if "=" in opt:
            raise UserError(f"{opt!r}: give overrides as KEY VALUE, with a blank in place of '='")
        if opt not in known:
            raise UserError(_unknown_key(opt, known))
        if isinstance(known[opt], dict):
            raise UserError(f"config key {opt} is a group; give one of the keys in it")
    if len(opts) % 2:
        raise UserError(f"config key {opts[-1]} has no value; overrides are KEY VALUE pairs")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        try:
            cfg.merge_from_list([key, _readable(key, value, known[key])])
            _refuse_none(cfg, {key: known[key]})
        except (ValueError, TypeError, AssertionError) as error:
            raise UserError(
                f"config key {key}: {value!r} is no value for it; "
                f"it needs {_article(known[key])}, such as {known[key]!r}"
            ) from error


def _readable(key: str, text: Any, current: Any) -> Any:
    """``text`` in the type of ``current`` where there is no doubt what is meant."""
    if not isinstance(text, str):
        # of Python's callers; yacs takes no 0 for 0.0
        return float(text) if isinstance(current, float) and type(text) is int else text
    if isinstance(current, bool) and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if isinstance(current, float) and re.fullmatch(r"[+-]?\d+(e[+-]?\d+)?", text.lower()):
        return float(text)
    if isinstance(current, str):
        # a file may be called 1234: quoted, so that it is not read as a number
        return text if text[:1] in {"'", '"'} else repr(text)
    if key in NAME_LISTS:
        return split_names(text)
    if key in _FILE_LISTS and text[:1] not in {"(", "["}:
        return tuple(file.strip() for file in text.split(",") if file.strip())
    return text


def _unknown_key(key: str, known: dict[str, Any]) -> str:
    close = difflib.get_close_matches(key.upper(), known, n=3, cutoff=0.6)
    # the last part alone may be right while the group is not
    close += [name for name in known if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1].upper()]
    close = list(dict.fromkeys(close))[:3]
    hint = f"did you mean {' or '.join(close)}?" if close else "ovseg/config/keys.py lists all keys"
    return f"unknown config key {key}; {hint}"


def _article(value: Any) -> str:
    kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
    return kinds.get(type(value), f"a {type(value).__name__}")
