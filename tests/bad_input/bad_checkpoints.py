"""Broken and hostile checkpoints."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from bad_cases import (
    TINY,
    WEIGHTS,
    Code,
    Command,
    case,
    segment,
    written,
)


def _weights(folder: Path, path: Path) -> Command:
    return segment(folder, "--config-file", TINY, "--opts", "MODEL.WEIGHTS", path)


def _state() -> dict[str, Any]:
    state: dict[str, Any] = torch.load(WEIGHTS, weights_only=True)["model"]
    return dict(state)


def _saved(folder: Path, content: Any, name: str = "weights.pth") -> Command:
    torch.save(content, folder / name)
    return _weights(folder, folder / name)


@case
def checkpoint_missing(folder: Path) -> Command:
    return _weights(folder, folder / "weights.pth")


@case
def checkpoint_empty(folder: Path) -> Command:
    return _weights(folder, written(folder / "weights.pth", b""))


@case
def checkpoint_text(folder: Path) -> Command:
    return _weights(folder, written(folder / "weights.pth", "no weights"))


@case
def checkpoint_web_page(folder: Path) -> Command:
    return _weights(folder, written(folder / "weights.pth", "<!DOCTYPE html><html>quota"))


@case
def checkpoint_git_lfs(folder: Path) -> Command:
    note = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
    return _weights(folder, written(folder / "weights.pth", note))


@case
def checkpoint_cut_off(folder: Path) -> Command:
    return _weights(folder, written(folder / "weights.pth", WEIGHTS.read_bytes()[:1_000_000]))


@case
def checkpoint_of_code(folder: Path) -> Command:
    return _saved(folder, {"model": Code(folder)})


@case
def checkpoint_pickle_of_code(folder: Path) -> Command:
    return _weights(folder, written(folder / "weights.pkl", pickle.dumps({"model": Code(folder)})))


@case
def checkpoint_torchscript_of_code(folder: Path) -> Command:
    """The archive of a script whose pickle calls."""
    path = folder / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(Code(folder), 2))
        archive.writestr("a/code/x.py", "")
        archive.writestr("a/version", "3")
        archive.writestr("a/constants.pkl", pickle.dumps((), 2))
    return _weights(folder, path)


@case
def checkpoint_of_another_model(folder: Path) -> Command:
    return _saved(folder, {"model": {"conv.weight": torch.zeros(2, 2)}})


@case
def checkpoint_of_other_shapes(folder: Path) -> Command:
    state = _state()
    name = "sem_seg_head.predictor.query_embed.weight"
    return _saved(folder, {"model": {**state, name: state[name][:3]}})


@case
def checkpoint_without_weights(folder: Path) -> Command:
    return _saved(folder, {"iteration": 3})


@case
def checkpoint_list(folder: Path) -> Command:
    return _saved(folder, [torch.zeros(2)])


@case
def checkpoint_with_nan(folder: Path) -> Command:
    state = _state()
    name = "sem_seg_head.predictor.query_embed.weight"
    state[name] = state[name].clone()
    state[name][0, 0] = torch.nan
    return _saved(folder, {"model": state})


@case
def checkpoint_with_infinity(folder: Path) -> Command:
    state = _state()
    name = "clip_adapter.clip_model.visual.proj"
    state[name] = state[name].clone()
    state[name][1, 1] = torch.inf
    return _saved(folder, {"state_dict": state})


@case
def checkpoint_zip_bomb(folder: Path) -> Command:
    torch.save({"model": {"a": torch.zeros(4)}}, folder / "sound.pth")
    with (
        zipfile.ZipFile(folder / "sound.pth") as sound,
        zipfile.ZipFile(folder / "weights.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in sound.namelist():
            content = sound.read(name)
            bomb.writestr(name, bytes(300_000_000) if name.endswith("/data/0") else content)
    (folder / "sound.pth").unlink()
    return _weights(folder, folder / "weights.pth")


@case
def checkpoint_zip_of_other_things(folder: Path) -> Command:
    with zipfile.ZipFile(folder / "weights.pth", "w") as archive:
        archive.writestr("../../evil.txt", "x")
    return _weights(folder, folder / "weights.pth")


@case
def checkpoint_safetensors_head_too_long(folder: Path) -> Command:
    content = struct.pack("<Q", 1 << 60) + b"{}"
    return _weights(folder, written(folder / "weights.safetensors", content))


@case
def checkpoint_safetensors_beyond_its_end(folder: Path) -> Command:
    head = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
    content = struct.pack("<Q", len(head)) + head.encode()
    return _weights(folder, written(folder / "weights.safetensors", content))


@case
def checkpoint_folder_without_weights(folder: Path) -> Command:
    (folder / "model").mkdir()
    return segment(folder, "--model", folder / "model")


@case
def model_unknown(folder: Path) -> Command:
    return segment(folder, "--model", "swinC")
