"""Checkpoint files of every form and layout, and what cannot be read."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ovseg.errors import UserError
from ovseg.utils.checkpoint_files import read_checkpoint, without_prefix

WEIGHTS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1, 2])}
ARRAYS = {name: value.numpy() for name, value in WEIGHTS.items()}


class Script(nn.Module):
    """Has the same weights, for a TorchScript archive."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Module()
        for name, value in WEIGHTS.items():
            self.conv.register_buffer(name.removeprefix("conv."), value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


FORMS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "torch": ("a.pth", lambda path: torch.save(WEIGHTS, path)),
    "torch before 1.6": (
        "a.pth",
        lambda path: torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False),
    ),
    "torch by another name": ("a.pkl", lambda path: torch.save(WEIGHTS, path)),
    "safetensors": ("a.safetensors", lambda path: save_file(WEIGHTS, path)),
    "safetensors by another name": ("a.bin", lambda path: save_file(WEIGHTS, path)),
    "detectron2": ("a.pkl", lambda path: path.write_bytes(pickle.dumps({"model": ARRAYS}))),
    "detectron2, flat": ("a.pkl", lambda path: path.write_bytes(pickle.dumps(ARRAYS, 2))),
    "torchscript": ("a.pt", lambda path: torch.jit.save(torch.jit.script(Script()), path)),
}


def assert_read(path: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    assert checkpoint.weights.keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        assert torch.equal(checkpoint.weights[name], value)
        assert checkpoint.weights[name].dtype == value.dtype
    return checkpoint.entries


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form: str, tmp_path: Path) -> None:
    name, write = FORMS[form]
    write(tmp_path / name)
    assert not assert_read(tmp_path / name)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "conv"])
@pytest.mark.parametrize("place", [None, "model", "state_dict", "model_state_dict"])
def test_every_layout_is_read(place: str | None, prefix: str, tmp_path: Path) -> None:
    table = {
        name.replace("conv", "conv._orig_mod") if prefix == "conv" else prefix + name: value
        for name, value in WEIGHTS.items()
    }
    torch.save({place: table, "epoch": 3} if place else {**table, "epoch": 3}, tmp_path / "a.pt")
    assert assert_read(tmp_path / "a.pt") == {"epoch": 3}


def test_numpy_scalars_and_options_go_with_weights(tmp_path: Path) -> None:
    """As open_clip's ``epoch_N.pt`` before 3.0, whose learning rate NumPy computed."""
    model = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=np.float64(0.25))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    extras = {
        "optimizer": optimizer.state_dict(),
        "float32": np.float32(0.5),
        "whole": np.int64(7),
        "truth": np.bool_(True),
        "dtype": np.dtype("float16"),
        "array": np.arange(6).reshape(2, 3),
        "args": argparse.Namespace(lr=np.float64(0.25)),
    }
    content = {"epoch": 1, "name": "run", "state_dict": WEIGHTS, **extras}
    for new in (True, False):
        torch.save(content, tmp_path / "epoch_1.pt", _use_new_zipfile_serialization=new)
        entries = assert_read(tmp_path / "epoch_1.pt")
        assert entries["optimizer"]["param_groups"][0]["lr"] == 0.25
        assert entries["args"] == extras["args"]
        np.testing.assert_array_equal(entries["array"], extras["array"])
        for name in ("float32", "whole", "truth", "dtype"):
            assert entries[name] == extras[name]


def test_numpy_1_scalars_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy 1 names its module ``numpy.core``, NumPy 2 ``numpy._core``, of another length."""

    class Old(pickle._Pickler):  # type: ignore[name-defined]  # Python's own, whose names can be changed
        def save_global(self, value: Any, name: str | None = None) -> None:
            if getattr(value, "__module__", "").startswith("numpy._core"):
                self.write(b"cnumpy.core.multiarray\n" + value.__name__.encode() + b"\n")
                self.memoize(value)
            else:
                super().save_global(value, name)

        dispatch = pickle._Pickler.dispatch.copy()  # type: ignore[attr-defined]
        dispatch[type(lambda: 0)] = save_global

    class Module:
        Pickler, Unpickler = Old, pickle.Unpickler
        dumps, loads = staticmethod(pickle.dumps), staticmethod(pickle.loads)

    content = {"state_dict": WEIGHTS, "lr": np.float64(0.25)}
    torch.save(content, tmp_path / "old.pt", pickle_module=Module)
    with zipfile.ZipFile(tmp_path / "old.pt") as archive:
        assert b"numpy.core.multiarray\nscalar" in archive.read("old/data.pkl")
    assert assert_read(tmp_path / "old.pt") == {"lr": 0.25}


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(
    value: float, kind: torch.dtype, tmp_path: Path
) -> None:
    weights = {"a.bias": torch.zeros(3, dtype=kind), "a.steps": torch.arange(2)}
    mask = torch.full((2, 2), float("-inf"))  # OpenAI's CLIP hides later words by such numbers
    path = tmp_path / "a.pth"
    torch.save({"model": {**weights, "attn_mask": mask}}, path)
    read_checkpoint(path)
    weights["a.bias"][1] = value
    torch.save({"model": {**weights, "attn_mask": mask}}, path)
    with pytest.raises(UserError) as caught:
        read_checkpoint(path, "MODEL.WEIGHTS")
    assert str(caught.value) == (
        f"MODEL.WEIGHTS {str(path)!r} holds the weight a.bias, of whose 3 numbers 1 are not "
        "finite; its training went astray: give an earlier checkpoint"
    )


@pytest.mark.parametrize("place", ["ema", "ema_state_dict", "params", "net.module"])
def test_the_only_table_of_weights_is_read(place: str, tmp_path: Path) -> None:
    table: dict[str, Any] = WEIGHTS
    for name in reversed(place.split(".")):
        table = {name: table}
    torch.save({**table, "epoch": 3, "optimizer": {"state": {0: {}}}}, tmp_path / "a.pth")
    assert assert_read(tmp_path / "a.pth")["epoch"] == 3
    # beside those of the model they are not meant
    other = {name: value + 1 for name, value in WEIGHTS.items()}
    torch.save({"model": WEIGHTS, "model_ema": other}, tmp_path / "a.pth")
    assert_read(tmp_path / "a.pth")


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_several_files_are_read_by_their_index(ending: str, tmp_path: Path) -> None:
    names = {name: f"model-{part:05}-of-00002.{ending}"
             for part, name in enumerate(WEIGHTS, start=1)}  # fmt: skip
    assert len(names) == 2
    for name, file in names.items():
        if ending == "bin":
            torch.save({name: WEIGHTS[name]}, tmp_path / file)
        else:
            save_file({name: WEIGHTS[name]}, tmp_path / file)
    index = tmp_path / f"model.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert_read(index)
    with pytest.raises(UserError, match=rf"it is a part of a checkpoint; give {index.name} besid"):
        read_checkpoint(tmp_path / names[next(iter(names))])


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("evil-was-here",)


def damage(path: Path, kept: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * kept)])


def broken(form: str, kept: float = 0.6) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        FORMS[form][1](path)
        damage(path, kept)

    return write


def archive_of_texts(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README", "hello")


UNREADABLE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "code": (
        "a.pth",
        lambda path: torch.save({"model": WEIGHTS, "x": Evil()}, path),
        r"it holds code besides weights \(\w+\.mkdir\)",
    ),
    "code in a pickle": (
        "a.pkl",
        lambda path: path.write_bytes(pickle.dumps({"model": Evil()})),
        r"it holds code besides weights \(\w+\.mkdir\)",
    ),
    "a module": (
        "a.pth",
        lambda path: torch.save(nn.Linear(1, 1), path),
        r"it holds code besides weights \(torch\.nn\.modules\.linear\.Linear\)",
    ),
    "truncated": ("a.pth", broken("torch"), "it is truncated"),
    "truncated, old": ("a.pth", broken("torch before 1.6"), "it is truncated"),
    "truncated safetensors": ("a.safetensors", broken("safetensors", 0.9), "it is truncated"),
    "truncated pickle": ("a.pkl", broken("detectron2"), "it is truncated"),
    "empty": ("a.pth", lambda path: path.touch(), "it is empty"),
    "noise": ("a.pth", lambda path: path.write_bytes(b"noise"), "it is no checkpoint"),
    "a web page": (
        "a.pth",
        lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>Sign in</html>"),
        "it is a web page",
    ),
    "Git LFS": (
        "a.pth",
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid 1\n"),
        "run git lfs pull",
    ),
    "a web page as safetensors": (
        "a.safetensors",
        lambda path: path.write_bytes(b"<!DOCTYPE html><html>Sign in</html>"),
        "it is a web page",
    ),
    "Git LFS as a pickle": (
        "a.pkl",
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid 1\n"),
        "run git lfs pull",
    ),
    "gzip": (
        "a.pth.gz",
        lambda path: path.write_bytes(gzip.compress(b"weights")),
        "it is packed; unpack it",
    ),
    "several tables": (
        "a.pth",
        lambda path: torch.save({"ema": WEIGHTS, "net": {"module": WEIGHTS}}, path),
        "it holds several tables of weights, ema, net.module; save the one that is meant as model",
    ),
    "an optimizer alone": (
        "a.pth",
        lambda path: torch.save({"optimizer": {"exp_avg": WEIGHTS}}, path),
        "no table of names and tensors",
    ),
    "an index without its files": (
        "a.safetensors.index.json",
        lambda path: path.write_text('{"weight_map": {"a": "a-00001-of-00002.safetensors"}}'),
        "it names a-00001-of-00002.safetensors, which is not beside it",
    ),
    "an index of nothing": (
        "a.bin.index.json",
        lambda path: path.write_text("{}"),
        "it is no index of weights",
    ),
    "another archive": ("a.pth", archive_of_texts, "archive of other things"),
    "a list": ("a.pth", lambda path: torch.save([1], path), "it holds a list in place of"),
    "no weights": (
        "a.pth",
        lambda path: torch.save({"model": {"a": "b"}}, path),
        "no table of names and tensors",
    ),
    "a name as model": (
        "a.pth",
        lambda path: torch.save({"model": "resnet50"}, path),
        "it holds a str in place of a state dict",
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, write, message = UNREADABLE[kind]
    write(tmp_path / name)
    with pytest.raises(UserError, match=message) as raised:
        read_checkpoint(tmp_path / name, "MODEL.WEIGHTS")
    text = str(raised.value)
    assert text.startswith(f"MODEL.WEIGHTS {str(tmp_path / name)!r} cannot be read: it ")
    assert "\n" not in text
    assert "weights_only" not in text
    assert "safe_globals" not in text
    assert not (tmp_path / "evil-was-here").exists()


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(UserError, match="is a folder; give the file in it"):
        read_checkpoint(tmp_path)


def test_a_prefix_is_found_by_names_that_are_known() -> None:
    one = torch.ones(1)
    lightning = OrderedDict({"model.conv.weight": one, "model.conv.bias": one, "loss.scale": one})
    assert without_prefix(lightning, {"conv.weight", "other"}).keys() == {
        "conv.weight", "conv.bias"
    }  # fmt: skip
    deep = {"a.b.conv.weight": one, "a.b.head.weight": one}
    assert without_prefix(deep, ["conv.weight"]).keys() == {"conv.weight", "head.weight"}
    # a known name that stands as it is: nothing is taken off
    mixed = {"conv.weight": one, "model.conv.weight": one}
    assert without_prefix(mixed, ["conv.weight"]) is mixed
    assert without_prefix(deep, ["unknown"]) is deep
    # half a name is none
    assert without_prefix({"preconv.weight": one}, ["conv.weight"]).keys() == {"preconv.weight"}
