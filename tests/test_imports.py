"""Who may import whom; the rules keep every stage readable alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SLOW_FILES

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("backbone", "proposals", "crops", "clip", "ensemble", "segmentation", "panoptic")

# importer's prefix -> prefixes that it must not import
FORBIDDEN = {
    "ovseg.data": ("ovseg.modeling", "ovseg.evaluation", "ovseg.engine", "ovseg.predictor"),
    "ovseg.modeling": (
        *("ovseg.data", "ovseg.evaluation", "ovseg.engine", "ovseg.predictor", "ovseg.methods"),
    ),
    "ovseg.methods": ("ovseg.data", "ovseg.evaluation", "ovseg.engine", "ovseg.predictor"),
    "ovseg.evaluation": ("ovseg.modeling", "ovseg.engine", "ovseg.predictor"),
    "ovseg.structures": ("ovseg.modeling", "ovseg.data", "ovseg.engine", "ovseg.predictor"),
    "ovseg.engine": ("ovseg.predictor",),
    # neither PyTorch nor what needs it
    "ovseg.runtime": (
        *("torch", "torchvision", "detectron2", "fvcore", "open_clip", "cv2", "matplotlib"),
        *("ovseg.modeling", "ovseg.engine", "ovseg.evaluation", "ovseg.structures"),
        *("ovseg.predictor", "ovseg.encoded_image", "ovseg.export"),
    ),
    "ovseg": ("demo", "train_net", "tools", "datasets", "stickerscenes", "open_clip_training"),
    "open_clip_training": ("demo", "train_net", "tools", "datasets", "stickerscenes"),
} | {
    f"ovseg.modeling.{stage}": (
        "ovseg.modeling.ovseg",
        *(f"ovseg.modeling.{other}" for other in STAGES if other != stage),
    )
    for stage in STAGES
}
# importer's prefix -> all of ovseg that it may import
ALLOWED = {
    "ovseg.utils": ("ovseg.errors",),
    "ovseg.video": ("ovseg.errors", "ovseg.structures", "ovseg.utils"),
    "ovseg.results": ("ovseg.errors", "ovseg.utils", "ovseg.prediction", "ovseg.segments"),
}
#: the only parts of ovseg that may import the command lines
COMMANDS = ("ovseg.cli", "ovseg.__main__")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Absolute names of all modules, and of all names from modules, that a file imports."""
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
    return found


def is_in(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


FILES = sorted(
    path for folder in ("ovseg", "open_clip_training") for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_the_rules(path: Path) -> None:
    module = module_of(path)
    broken = [
        f"{module} imports {name}"
        for importer, forbidden in FORBIDDEN.items()
        if is_in(module, importer)
        for name in imports_of(path)
        for prefix in forbidden
        if is_in(name, prefix)
    ]
    broken += [
        f"{module} imports {name}"
        for importer, allowed in ALLOWED.items()
        if is_in(module, importer)
        for name in imports_of(path)
        if is_in(name, "ovseg") and not any(is_in(name, part) for part in (importer, *allowed))
    ]
    if is_in(module, "ovseg") and not any(is_in(module, part) for part in COMMANDS):
        broken += [
            f"{module} imports {name}" for name in imports_of(path) if is_in(name, "ovseg.cli")
        ]
    assert not broken


def test_nothing_but_scripts_imports_the_commands() -> None:
    importers = {
        module_of(path) for path in FILES if any(is_in(n, "ovseg.cli") for n in imports_of(path))
    }
    assert {name for name in importers if not is_in(name, "ovseg.cli")} == {"ovseg.__main__"}


def test_the_web_page_is_imported_by_its_command_alone() -> None:
    modules = {module_of(path): imports_of(path) for path in FILES}
    importers = {
        module
        for module, names in modules.items()
        if not is_in(module, "ovseg.web") and any(is_in(name, "ovseg.web") for name in names)
    }
    assert importers == {"ovseg.cli.web"}
    # what is behind the page works, and is tested, without its library
    assert {module for module, names in modules.items() if "gradio" in names} == {
        "ovseg.web.events", "ovseg.web.page", "ovseg.web.region_view", "ovseg.web.server"
    }  # fmt: skip


def test_relative_imports_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    folder = tmp_path / "ovseg" / "modeling"
    folder.mkdir(parents=True)
    (folder / "crops.py").write_text("from .clip import x\nfrom ..data import y\nimport demo\n")
    assert {"ovseg.modeling.clip", "ovseg.data", "demo"} <= imports_of(folder / "crops.py")


def test_missing_detectron2_is_answered() -> None:
    blocked = "import sys; sys.modules['detectron2'] = None; from ovseg import Predictor"
    done = subprocess.run(
        [sys.executable, "-c", blocked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    last = done.stderr.splitlines()[-1]
    assert last == "ImportError: OVSeg needs detectron2: run ovseg install-detectron2"


def test_the_runtime_and_its_command_import_no_pytorch() -> None:
    modules = ", ".join(
        module_of(path) for path in FILES if is_in(module_of(path), "ovseg.runtime")
    )
    asked = (
        f"import sys, ovseg, {modules}, ovseg.cli.segment, ovseg.cli.segmenters\n"
        "heavy = {'torch', 'torchvision', 'detectron2', 'fvcore', 'open_clip', 'cv2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_files_that_the_fast_tests_leave_out_are_there() -> None:
    assert [name for name in SLOW_FILES if not (ROOT / "tests" / name).is_file()] == []
