"""The files that travel with the package: ``configs/`` and ``resources/``.

A clone has them at its top, an installation inside the package.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def package_folder(name: str) -> Path:
    """``configs`` or ``resources``."""
    package = Path(str(files("ovseg")))
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


def clone_folder() -> Path | None:
    """The top of the clone that this is run from; None in an installation."""
    top = Path(str(files("ovseg"))).parent
    return top if (top / "configs").is_dir() else None


def config_path(name: str) -> Path:
    """A config of ``configs/`` by its file name."""
    return package_folder("configs") / name
