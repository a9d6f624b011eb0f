"""The command that makes small archives; what it writes is read by tests/data/test_prepare*.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import ROOT

TOOL = ROOT / "tools" / "make_sample_archives.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_archive_is_written_and_nothing_over_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "archives"
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert f"DETECTRON2_DATASETS={folder}" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == [
        "ADE20K_2021_17_01",
        "ADEChallengeData2016",
        "VOCdevkit",
        "coco",
    ]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = run(folder)
    assert again.returncode == 2
    assert again.stderr == (
        f"error: folder {str(folder)!r} is not empty; name a new one, so that no data set is "
        "touched\n"
    )
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_wrong_usage_is_one_line() -> None:
    done = run()
    assert done.returncode == 2
    assert done.stderr.startswith("error: the following arguments are required: folder")
    assert len(done.stderr.splitlines()) == 1
