"""The notebook of the documentation runs, and shows what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient

NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"
NAMES = ["soccer ball", "teapot", "grass", "night sky"]


def text_of(cell: nbformat.NotebookNode) -> str:
    """What a cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_it_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a kernel of this very interpreter, whatever kernels are installed
    write_kernel_spec(str(tmp_path / "kernels" / "this"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", ":".join([str(ROOT), *filter(None, sys.path)]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="this",
        timeout=300,
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    )
    client.execute()  # an error in a cell is raised here

    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    data = [output.get("data", {}) for cell in code for output in cell.outputs]
    assert sum("image/png" in shown for shown in data) == 4  # three overlays, proposals
    areas = text_of(code[1]).splitlines()
    assert [line[:12].strip() for line in areas] == NAMES
    assert all(int(line[12:].split()[0]) > 0 for line in areas)
    (rejected,) = (text_of(cell).splitlines() for cell in code if "reject=" in cell.source)
    without, with_it = (float(line.split()[2].rstrip("%")) for line in rejected)
    assert without == 0
    assert 5 < with_it < 25  # the teapot
    assert text_of(code[-2]).count("MaskFormer") >= 2
