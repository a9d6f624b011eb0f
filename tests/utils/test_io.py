"""Files are written whole or not at all, and JSON comes back as it went."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovseg.errors import UserError
from ovseg.utils.io import atomic_path, read_json, write_json


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
