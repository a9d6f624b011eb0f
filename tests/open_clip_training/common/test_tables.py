"""Tables as people make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from open_clip_training.common.tables import read_columns, read_table
from ovseg.errors import UserError


def test_rows_and_what_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('image,caption,more\nx.png,"a ""cat"", lying",1\ny.png\n', "utf-8-sig")
    assert read_table(path, ("image", "caption"), "--captions") == [
        {"image": "x.png", "caption": 'a "cat", lying', "more": "1"},
        {"image": "y.png", "caption": "", "more": ""},
    ]
    with pytest.raises(UserError) as raised:
        read_table(path, ("image", "noun"), "--train-data a.csv")
    assert str(raised.value) == (
        "--train-data a.csv lacks the column 'noun'; it has 'image', 'caption', 'more' (columns "
        "are separated by commas or tabs), and needs image and noun"
    )
    path.write_text("filepath\ttitle\na,b.png\ta photo of a cat.\n")
    assert read_table(path, ("filepath", "title"), "--train-data") == [
        {"filepath": "a,b.png", "title": "a photo of a cat."}
    ]
    assert read_columns(path, "--train-data") == ["filepath", "title"]
    path.write_text("")
    with pytest.raises(UserError, match=r"lacks the column 'image'; it has none"):
        read_table(path, ("image",), "--captions")
    path.write_bytes(b"image\n\xff\xfe\n")
    with pytest.raises(UserError, match=r"--captions cannot be read as CSV"):
        read_table(path, ("image",), "--captions")
