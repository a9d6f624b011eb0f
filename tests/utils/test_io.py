"""Files are written whole or not at all, and JSON comes back as it went."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ovseg.errors import UserError
from ovseg.utils import io
from ovseg.utils.io import atomic_path, naming_file, read_json, remove_abandoned, write_json


def fail_while_writing(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for kept in (None, "before"):
        if kept is not None:
            path.write_text(kept)
        with pytest.raises(RuntimeError):
            fail_while_writing(path)
        assert [file.read_text() for file in path.parent.iterdir()] == ([kept] if kept else [])


def test_json_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    content = {"noun": "Bär", "scores": [0.1, None], "nested": {"a": True}}
    write_json(path, content)
    assert read_json(path, dict) == content
    assert "Bär" in path.read_text(encoding="utf-8")
    path.write_text("[1, 2]", encoding="utf-8-sig")
    assert read_json(path, list) == [1, 2]
    with pytest.raises(UserError, match=r"a.json is broken; delete it"):
        read_json(path, dict)
    with pytest.raises(TypeError, match="set"):
        write_json(path, {1, 2})
    assert read_json(path, list) == [1, 2]
    path.write_text("{")
    with pytest.raises(UserError, match=r"a.json cannot be read \(.*\); write it again"):
        read_json(path, dict, "write it again")
    with pytest.raises(UserError, match=r"gone.json cannot be read"):
        read_json(tmp_path / "gone.json", dict)


def test_what_does_not_fit_is_told_from_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for error in (RuntimeError("a fault"), OSError("no number"), UserError("a mistake")):
        with pytest.raises(type(error)) as raised, atomic_path(path):
            raise error
        assert raised.value is error
    with pytest.raises(OSError, match="No space") as full, naming_file(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(tmp_path)
    # what names a file of its own keeps it
    with pytest.raises(OSError, match="No space") as full, naming_file(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "b.txt")
    assert full.value.filename == "b.txt"


def test_long_names_are_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 100 + "n" * 45 + ".json")
    write_json(path, {})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


_KILLED = """
import os, sys
from ovseg.utils.io import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_a_killed_run_is_swept_by_the_next_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    host, token = left.stem.split("-")[1], left.stem.split("-")[3]
    others = {
        f".a-{host}-{os.getppid()}-{token}.json": True,  # a living process of this machine
        f".a-ffff-{os.getppid()}-{token}.json": False,  # another machine's, untouched for long
        ".a-a1b2c3d4.json": True,  # of somebody else
        ".hidden": True,
    }
    assert host != "ffff"
    for name in others:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    recent = tmp_path / f".a-ffff-7-{token}.json"
    recent.touch()
    write_json(path, [1])  # the first file that this process writes there
    kept = {name for name, stays in others.items() if stays}
    assert {file.name for file in tmp_path.iterdir()} == {path.name, recent.name, *kept}
    os.utime(recent, (0, time.time() - io._IDLE - 9))
    remove_abandoned(tmp_path)
    assert not recent.exists()
