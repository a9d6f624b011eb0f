"""Every row of docs/bad-input.md is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bad_inputs import CASES, RAN
from conftest import ROOT

from ovseg.cli import main

DOCUMENT = ROOT / "docs" / "bad-input.md"
_ROW = re.compile(r"^\| `(\w+)` \| [^|]+ \| (\d) \| `(.+)` \|$", re.MULTILINE)


def rows() -> dict[str, tuple[int, str]]:
    """Exit code and line of each case, as the document has them."""
    found = _ROW.findall(DOCUMENT.read_text(encoding="utf-8"))
    return {name: (int(code), said.replace("\\|", "|")) for name, code, said in found}


def outcome(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, error line and all else that was said; paths of the folder are cut to …/."""
    command = CASES[name](folder)
    code = 0
    try:
        command() if callable(command) else main([str(part) for part in command])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capfd.readouterr()
    text = (out + err).replace("\r", "\n").replace(f"{folder}/", "…/").replace(str(folder), "…")
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    others = [line for line in text.splitlines() if not line.startswith("error: ")]
    assert len(lines) == 1, text
    return code, lines[0].removeprefix("error: "), "\n".join(others)


def test_table_and_cases_are_the_same() -> None:
    assert list(rows()) == list(CASES)
    assert len(CASES) >= 60


@pytest.mark.usefixtures("forget_data_sets")
@pytest.mark.parametrize("name", CASES)
def test_row(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = rows()[name]
    seen_code, seen, others = outcome(name, tmp_path, capfd)
    pattern = ".*".join(map(re.escape, said.split("…")))
    assert re.fullmatch(pattern, seen), seen
    assert seen_code == code
    assert "Traceback" not in others
    assert not (tmp_path / RAN).exists()
    # what is written has such a name until it is whole
    assert list(tmp_path.rglob(".*")) == []
    if code == 2:
        assert [path for path in tmp_path.glob("out/**/*") if path.is_file()] == []
