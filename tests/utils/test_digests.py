"""Digests are plain SHA-256, whatever the parts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ovseg.utils.digests import digest, with_digest


def test_parts_make_one_digest() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    whole = "é".encode() + b"ab" + array.tobytes()
    assert digest(["é", b"a", b"b", array.data]) == hashlib.sha256(whole).hexdigest()
    assert digest([np.float32(1.5).reshape(()).data]) == digest([np.float32(1.5).tobytes()])


def test_a_path_tells_its_content(tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    content = bytes(range(256)) * 5000  # more than is read at once
    file.write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()[:16]
    assert with_digest(file) == f"{file} (sha256 {expected})"
    file.write_bytes(content[:-1])
    assert with_digest(str(file)) != f"{file} (sha256 {expected})"
    assert with_digest("ViT-B/16") == "ViT-B/16"
    assert with_digest("https://example.org/model.pth") == "https://example.org/model.pth"
