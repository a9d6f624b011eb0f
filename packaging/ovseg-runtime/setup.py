"""Which modules of OVSeg run exported models; everything else is in pyproject.toml.

Packages are taken whole, without the modules that import PyTorch or detectron2 when they are
imported: in this distribution nobody could.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

OVSEG = Path(__file__).resolve().parents[2] / "ovseg"
PACKAGES = ["", "cli", "config", "data", "engine", "results", "runtime", "utils"]
HEAVY = {"torch", "torchvision", "detectron2", "fvcore", "open_clip", "scipy"}
INSIDE = {f"ovseg.{name}" for name in ("modeling", "evaluation", "export", "web")}


def needs_more(path: str | Path) -> bool:
    """Whether a module imports what this distribution lacks, at its top."""
    for node in ast.parse(Path(path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        if any(name.split(".")[0] in HEAVY for name in names):
            return True
        if any(".".join(name.split(".")[:2]) in INSIDE for name in names):
            return True
        # of the engine only how processes are told apart is light
        parts = [OVSEG.parent.joinpath(*name.split(".")).with_suffix(".py") for name in names]
        if any(part.parent == OVSEG / "engine" and needs_more(part) for part in parts):
            return True
    return False


class LightModules(build_py):
    """Leaves out the modules that need more."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if not needs_more(module[2])]


version = re.search(r'__version__ = "(.+?)"', (OVSEG / "__init__.py").read_text(encoding="utf-8"))
assert version
setup(
    version=version[1],
    packages=[f"ovseg.{name}".rstrip(".") for name in PACKAGES] + ["ovseg.data.vocabularies"],
    package_dir={"ovseg": "../../ovseg"},
    package_data={"ovseg": ["py.typed", "*.json"], "ovseg.data.vocabularies": ["*.json"],
                  "ovseg.results": ["*.html"]},
    cmdclass={"build_py": LightModules},
)  # fmt: skip
