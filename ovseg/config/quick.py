"""A config read without PyTorch, to find mistakes in a command line at once.

detectron2 imports PyTorch before it lists a key. Its keys are read here from its source, which is
not run; the commands read the config again, by detectron2, when the look at it has found nothing.
"""

from __future__ import annotations

import ast
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.errors import UserError

from .checks import check_config
from .keys import add_ovseg_config
from .overrides import find_config
from .reading import flatten, merge_file, merge_opts

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

# the files of detectron2 that list keys
_LISTS = ("config/defaults.py", "projects/deeplab/config.py")


def quick_cfg(config_file: str | os.PathLike[str], opts: Sequence[str]) -> CfgNode | None:
    """What :func:`ovseg.config.setup_cfg` will read, but for the device that is there.

    Returns:
        The config; None where only detectron2 can read it: its source, or a config file, is not of
        the form that is known here.

    Raises:
        UserError: a missing config file, an unknown key, or a value that cannot be.
    """
    path = find_config(config_file)
    cfg = quick_defaults()
    if cfg is None:
        return None
    known = dict(flatten(cfg))
    try:
        merge_file(cfg, path, known)
    except UserError:  # detectron2 also reads the keys of its earlier versions
        merge_opts(cfg, opts, known)
        return None
    merge_opts(cfg, opts, known)
    check_config(cfg)
    return cfg


def check_opts(opts: Sequence[str]) -> CfgNode | None:
    """Look at KEY VALUE pairs whose config is not known yet.

    Returns:
        The defaults with these values; None where only detectron2 can read them.

    Raises:
        UserError: an unknown key, or a value of a wrong type.
    """
    cfg = quick_defaults()
    if cfg is not None:
        merge_opts(cfg, opts, dict(flatten(cfg)))
    return cfg


def quick_defaults() -> CfgNode | None:
    """All keys with their defaults; None in place of a default that is no plain value."""
    try:
        package = importlib.util.find_spec("detectron2")
        from fvcore.common.config import CfgNode
    except ImportError:
        return None
    cfg = CfgNode()
    for folder in (package and package.submodule_search_locations) or ():
        files = [Path(folder, name) for name in _LISTS]
        if all(file.is_file() for file in files):
            for file in files:
                _add_keys(cfg, file)
            add_ovseg_config(cfg)
            return cfg
    return None


def _add_keys(cfg: CfgNode, file: Path) -> None:
    """Add what is assigned in a file as ``_C.A.B = value`` or ``cfg.A.B = value``."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            *groups, key = ast.unparse(node.targets[0]).split(".")[1:]
            place = cfg
            for group in groups:
                place = place[group]
            place[key] = _value(node.value, type(cfg))


def _value(node: ast.expr, group: type[CfgNode]) -> Any:
    try:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "CN":
            return group(ast.literal_eval(node.args[0]) if node.args else {})
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):  # 1.0 / 1000
            return ast.literal_eval(node.left) / ast.literal_eval(node.right)
        return ast.literal_eval(node)
    except ValueError:
        return None
