"""``ovseg-runtime`` in an environment without PyTorch: a documented command, the demo's labels."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from ovseg import Predictor

WORDS = ["soccer ball", "teapot", "grass", "night sky"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with ``ovseg-runtime`` and what it asks for."""
    folder = tmp_path_factory.mktemp("clean")
    source = folder / "source"
    shutil.copytree(ROOT / "ovseg", source / "ovseg")
    shutil.copytree(ROOT / "packaging", source / "packaging")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    project = source / "packaging" / "ovseg-runtime"
    subprocess.run([*command, "-w", folder, project], check=True, capture_output=True)
    (wheel,) = folder.glob("ovseg_runtime-*.whl")
    assert wheel.stat().st_size < 1_000_000
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", wheel], capture_output=True, text=True
    )
    if done.returncode:
        if os.environ.get("CI"):
            pytest.fail(done.stderr)
        pytest.skip(f"no package index: {done.stderr.splitlines()[-1]}")
    return python


def run(python: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in the environment, away from the clone."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, *command], cwd=python.parent, env=plain, capture_output=True, text=True
    )


def documented_command() -> list[str]:
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    found = re.search(r"^ovseg segment (--runtime exported .*output/exported)$", text, re.MULTILINE)
    assert found
    return [part.strip("'") for part in re.findall(r"'[^']*'|\S+", found[1])]


@pytest.mark.slow
def test_the_documented_command_gives_the_labels_of_the_demo(
    python: Path, exported: Path, embedded: Predictor, tmp_path: Path
) -> None:
    places = {
        "exported": str(exported), "resources/samples": str(ROOT / "resources" / "samples"),
        "output/exported": str(tmp_path),
    }  # fmt: skip
    command = [places.get(part, part) for part in documented_command()]
    done = run(python, "-m", "ovseg", "segment", *command)
    assert done.returncode == 0, done.stderr
    samples = sorted((ROOT / "resources" / "samples").glob("*.jpg"))
    assert len(samples) == 6
    for sample in samples:
        labels = np.asarray(Image.open(tmp_path / f"{sample.stem}_labels.png"))
        expected = embedded(sample, WORDS).labels
        assert (np.where(labels == 255, -1, labels) == expected).mean() >= 0.999
        about = json.loads((tmp_path / f"{sample.stem}.json").read_text())
        assert about["model"]["runtime"] == str(exported)
        with Image.open(tmp_path / f"{sample.stem}_overlay.jpg") as overlay:
            assert overlay.width > labels.shape[1]


@pytest.mark.slow
def test_the_environment_has_no_pytorch(python: Path) -> None:
    asked = (
        "from importlib.util import find_spec; import ovseg.runtime.predictor\n"
        "names = ('torch', 'torchvision', 'detectron2', 'open_clip', 'cv2', 'matplotlib')\n"
        "print([name for name in names if find_spec(name)])"
    )
    done = run(python, "-c", asked)
    assert done.stdout.strip() == "[]", done.stderr


SEGMENTS = """
import sys
from ovseg.errors import UserError
from ovseg.runtime import Predictor
encoded = Predictor(sys.argv[1]).encode(sys.argv[2])
found = encoded.panoptic(["soccer ball", "grass"], ["soccer ball"], object_mask_threshold=0.02)
print([segment.name for segment in found.segments], found.overlay().height)
try:
    encoded.instances(["soccer ball", "grass"]).describe()
except UserError as error:
    print(error)
"""


def test_segments_are_found_and_drawn_without_opencv(python: Path, exported: Path) -> None:
    done = run(python, "-c", SEGMENTS, str(exported), str(ROOT / "resources/samples/ball.jpg"))
    segments, message = done.stdout.splitlines()
    assert "'soccer ball'" in segments, done.stderr
    assert "'grass'" in segments
    assert message == "COCO's masks need pycocotools: pip install pycocotools"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "web", "export", "segment"])
def test_other_commands_say_what_they_need(python: Path, command: str) -> None:
    done = run(python, "-m", "ovseg", command)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    if command == "segment":
        assert line.startswith("error: no input")
    else:
        assert line.startswith(f"error: ovseg {command} needs PyTorch, and this is ovseg-runtime")


def test_it_is_small(python: Path) -> None:
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    files = [
        file
        for file in packages.rglob("*")
        if file.relative_to(packages).parts[0].split("-")[0] not in {"pip", "setuptools"}
        and file.suffix != ".pyc"
        and file.is_file()
    ]
    assert any("onnxruntime" in file.parts for file in files)
    assert sum(file.stat().st_size for file in files) < 150e6
