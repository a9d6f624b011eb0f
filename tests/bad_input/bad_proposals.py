"""Broken and hostile proposals."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from bad_cases import (
    Code,
    Command,
    case,
    deep,
    segment,
    written,
)


def _proposals(
    folder: Path, content: bytes | str = b"", name: str = "photo.npz", **arrays: Any
) -> Command:
    path = folder / "proposals" / name
    written(path, content)
    if arrays:
        np.savez_compressed(path, **arrays)
    return segment(folder, "--load-proposals", path.parent)


@case
def proposals_missing(folder: Path) -> Command:
    (folder / "proposals").mkdir()
    return segment(folder, "--load-proposals", folder / "proposals")


@case
def proposals_npz_of_text(folder: Path) -> Command:
    return _proposals(folder, "no masks")


@case
def proposals_npz_of_objects(folder: Path) -> Command:
    return _proposals(folder, masks=np.array([Code(folder)], object))


@case
def proposals_npz_bomb(folder: Path) -> Command:
    """Announces four terabytes, in a file of some hundred bytes."""
    head = io.BytesIO()
    shape = {"descr": "|b1", "fortran_order": False, "shape": (4, 10**6, 10**6)}
    np.lib.format.write_array_header_1_0(head, shape)
    path = folder / "proposals" / "photo.npz"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("masks.npy", head.getvalue() + bytes(1000))
    return segment(folder, "--load-proposals", path.parent)


@case
def proposals_without_masks(folder: Path) -> Command:
    return _proposals(folder, boxes=np.zeros((1, 4)))


@case
def proposals_with_nan(folder: Path) -> Command:
    return _proposals(folder, masks=np.full((1, 24, 32), np.nan, np.float32))


@case
def proposals_of_another_image(folder: Path) -> Command:
    return _proposals(folder, masks=np.ones((1, 300, 32), bool))


@case
def proposals_json_broken(folder: Path) -> Command:
    return _proposals(folder, "[{", "photo.json")


@case
def proposals_json_deep(folder: Path) -> Command:
    return _proposals(folder, deep("[", "]"), "photo.json")


@case
def proposals_json_of_a_huge_mask(folder: Path) -> Command:
    code = [{"size": [10**6, 10**6], "counts": [10**12]}]
    return _proposals(folder, json.dumps(code), "photo.json")


@case
def proposals_json_of_wrong_lengths(folder: Path) -> Command:
    return _proposals(folder, json.dumps([{"size": [24, 32], "counts": [3, 4]}]), "photo.json")


@case
def proposals_json_of_a_text_of_too_many_lengths(folder: Path) -> Command:
    code = [{"size": [24, 32], "counts": "0" * 40 + "P"}]  # its last number is not whole
    return _proposals(folder, json.dumps(code), "photo.json")
