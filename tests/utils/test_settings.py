"""Recorded settings against the present ones: what differs is named, and how users call it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from ovseg.errors import UserError
from ovseg.utils.settings import (
    RECORD,
    check_folder_settings,
    check_settings,
    differing_settings,
    option_name,
    option_settings,
    record_folder_settings,
)


def test_differences_are_those_of_json() -> None:
    recorded = {"sizes": [1, 2], "path": "a/b", "lr": 0.1, "gone": 1, "none": None}
    present = {"sizes": (1, 2), "path": Path("a/b"), "lr": 0.2, "new": 0, "none": None}
    assert differing_settings(recorded, present) == ["lr", "new", "gone"]
    assert differing_settings(recorded, recorded) == []
    assert differing_settings({}, {"none": None}) == []
    assert differing_settings({"flag": 1}, {"flag": 2}) == ["flag"]


def test_the_message_says_what_differs() -> None:
    assert option_name("min_noun_count") == "--min-noun-count"
    with pytest.raises(UserError) as raised:
        check_settings(
            {"batch": 4, "min_area": 0.1, "seed": 0, "templates": ["x" * 200]},
            {"batch": 8, "min_area": 0.2, "seed": 0, "templates": ["a {}"]},
            what="--resume: x.pt",
            way_out="start anew",
            names={"batch": "--batch-size"},
        )
    shown = str(["x" * 200])[:117]
    assert str(raised.value) == (
        "--resume: x.pt was begun with other settings (--batch-size 4, now 8; --min-area 0.1, "
        f"now 0.2; --templates {shown}..., now ['a {{}}']): start anew"
    )
    check_settings({"a": 1}, {"a": 1}, what="", way_out="")


def test_a_folder_keeps_its_settings(tmp_path: Path) -> None:
    options = argparse.Namespace(output=tmp_path, images=Path("here"), limit=None, nouns=["é"])
    settings = option_settings(options, leave_out=("output",))
    assert settings == {"images": "here", "limit": None, "nouns": ["é"]}
    check_folder_settings(tmp_path, settings)  # nothing is recorded
    record_folder_settings(tmp_path, settings)
    assert json.loads((tmp_path / RECORD).read_text(encoding="utf-8")) == settings
    check_folder_settings(tmp_path, settings)
    record_folder_settings(tmp_path, {**settings, "limit": 3})
    with pytest.raises(UserError, match=r"--output '.*' was begun .*\(N 3, now 4\): give another"):
        check_folder_settings(tmp_path, {**settings, "limit": 4}, {"limit": "N"})
    (tmp_path / RECORD).write_text("[]")
    with pytest.raises(UserError, match=r"settings.json is broken; delete it"):
        check_folder_settings(tmp_path, settings)
