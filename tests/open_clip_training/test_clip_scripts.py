"""The four scripts: they start anywhere, answer at once, and say in a line what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPTS = ("ablations", "collect_pairs", "pretrain", "train")
FOLDER = ROOT / "open_clip_training"
# a script as python starts it; its exit code, and what it has imported by then
RUN = """
import runpy, sys
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print("exit", end.code, *(name for name in ("torch", "detectron2") if name in sys.modules))
"""


def run(script: str, argument: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = str(FOLDER / f"{script}.py")
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = {[path, argument]!r}{RUN}"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_wrong_options_need_no_torch(script: str, tmp_path: Path) -> None:
    shown = run(script, "--help", tmp_path)
    assert shown.stdout.splitlines()[-1] == "exit 0"
    first_line = (FOLDER / f"{script}.py").read_text(encoding="utf-8").splitlines()[0].strip('"')
    assert first_line in shown.stdout
    wrong = run(script, "--wrnog", tmp_path)
    assert wrong.stdout.splitlines() == ["exit 2"]
    (line,) = wrong.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("; see --help")
    assert not list(tmp_path.iterdir())


def test_nothing_patches_the_path() -> None:
    files = sorted(FOLDER.rglob("*.py"))
    assert {FOLDER / f"{script}.py" for script in SCRIPTS} < set(files)
    assert not [file for file in files if "sys.path" in file.read_text(encoding="utf-8")]
