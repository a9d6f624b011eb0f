"""OVSeg's config keys, what they may be, and how a config is read from a file.

The names below are imported when they are first asked for, since they need detectron2.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import check_config
    from .files import default_cfg, setup_cfg
    from .keys import add_ovseg_config

__all__ = ["add_ovseg_config", "check_config", "default_cfg", "setup_cfg"]

_MODULE_OF = {
    "add_ovseg_config": "ovseg.config.keys",
    "check_config": "ovseg.config.checks",
    "default_cfg": "ovseg.config.files",
    "setup_cfg": "ovseg.config.files",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ovseg.config' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
