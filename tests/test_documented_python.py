"""The Python in the documents runs.

The blocks of a document run one after the other, as a reader would type them, in a folder that has
what they name. Blocks that need weights to be downloaded are compiled only.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from ovseg.video.files import VideoFile

DOCUMENTS = ("README.md", "GETTING_STARTED.md", *sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")
))  # fmt: skip
# what a block that is not run has in it
DOWNLOADED = ("swinB-vitL14", "R101c-vitB16", "hf://")


def python_blocks(document: str) -> list[str]:
    """The blocks of Python of a document, in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def needs_a_download(block: str) -> bool:
    """Whether a block wants weights that do not come with OVSeg."""
    return any(name in block for name in DOWNLOADED)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: Path) -> Path:
    """A working folder with the files that the documents name."""
    (tmp_path / "exported").symlink_to(exported)
    for name in ("configs", "resources"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, sample in (("photo", "ball"), ("photo2", "mouse")):
        shutil.copy(ROOT / "resources" / "samples" / f"{sample}.jpg", tmp_path / f"{name}.jpg")
    (tmp_path / "classes.txt").write_text("soccer ball | football\ngrass\n", encoding="utf-8")
    with VideoFile(tmp_path / "clip.avi", 10) as video:
        video.write(np.asarray(Image.open(tmp_path / "photo.jpg")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("document", [name for name in DOCUMENTS if python_blocks(name)])
def test_python_of_a_document_runs(document: str, folder: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(python_blocks(document), start=1):
        code = compile(block, f"{document}, block {number}", "exec")
        if not needs_a_download(block):
            exec(code, namespace)
    if "overlay.png" in "".join(python_blocks(document)):
        overlay = Image.open(folder / "overlay.png")
        picture = Image.open(folder / "photo.jpg")
        assert overlay.height >= picture.height
        assert overlay.width > picture.width  # a legend on the right


@pytest.mark.slow
def test_results_of_the_quickstart(folder: Path) -> None:
    namespace: dict[str, Any] = {}
    for block in python_blocks("docs/quickstart.md"):
        if not needs_a_download(block):
            exec(block, namespace)
    labels = np.asarray(Image.open(folder / "results" / "photo_labels.png"))
    prediction = namespace["prediction"]
    assert np.array_equal(np.where(labels == 255, -1, labels), prediction.labels)
    assert sorted(path.name for path in (folder / "my_model").iterdir()) == [
        "config.yaml", "model.safetensors"
    ]  # fmt: skip


def test_the_documents_have_python() -> None:
    assert {name for name in DOCUMENTS if python_blocks(name)} >= {
        "README.md", "GETTING_STARTED.md", "docs/index.md", "docs/quickstart.md"
    }  # fmt: skip
