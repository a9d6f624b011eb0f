"""The wheel holds all that the Python API needs: five lines, outside of the clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

FIVE_LINES = """
from ovseg import Predictor
predictor = Predictor.from_pretrained("tiny", device="cpu")
prediction = predictor("photo.jpg", ["teapot", "grass", "football"])
prediction.overlay().save("overlay.png")
print(prediction.areas())
"""
# what must not be needed, or would hide what the wheel lacks
LEFT_OUT = {".git", ".venv", "output", "build", "tests", ".mypy_cache", ".ruff_cache"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # building leaves files in the source folder
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=lambda *names: LEFT_OUT & set(names[1]))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True, capture_output=True)
    (built,) = folder.glob("ovseg-*.whl")
    return built


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = {
        "ovseg/py.typed",
        "ovseg/configs/base_ovseg.yaml",
        "ovseg/configs/methods/lseg.yaml",
        "ovseg/methods/pixel_segmenter.py",
        "ovseg/resources/ovseg_tiny.pth",
        "ovseg/data/vocabularies/stickerscenes.json",
        "ovseg/web/page.css",
        "open_clip_training/train.py",
    }
    assert wanted <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "ovseg",
        "open_clip_training",
    }
    assert not [name for name in names if name.endswith((".jpg", ".png"))]


@pytest.mark.slow
def test_five_lines_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    if os.name == "nt":
        python = tmp_path / "venv" / "Scripts" / "python.exe"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True
    )
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    # torch, detectron2 and the like from here; an editable ovseg is found by a .pth file, and such
    # files are not read from a folder that is added by one
    Path(site, "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.copy(ROOT / "resources/samples/ball.jpg", tmp_path / "photo.jpg")
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [python, "-c", f"import ovseg; print(ovseg.__file__)\n{FIVE_LINES}"],
        cwd=tmp_path, env=plain, check=True, capture_output=True, text=True,
    )  # fmt: skip
    where, areas = run.stdout.splitlines()
    assert Path(where).is_relative_to(site)
    assert sum(json.loads(areas)) > 0
    assert (tmp_path / "overlay.png").stat().st_size > 10_000
    command = [python.with_name("ovseg"), "--help"]
    helped = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "segment" in helped.stdout
