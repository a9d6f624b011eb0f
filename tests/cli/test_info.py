"""``ovseg info`` on processors, GPUs and data sets as they may be."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
from pathlib import Path

import pytest
import torch

from ovseg.cli import info


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse4_2 avx2 fma f16c", ["fp32"]),
        # AVX-512 alone computes bf16 by way of fp32
        ("avx2 avx512f avx512bw avx512vl avx512dq", ["fp32"]),
        ("avx2 avx512f avx512_vnni", ["fp32", "int8"]),
        ("avx512f avx512_vnni avx512_bf16", ["fp32", "bf16", "int8"]),
        ("avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8", ["fp32", "bf16", "fp16", "int8"]),
        ("fp asimd asimdhp asimddp sve bf16", ["fp32", "bf16", "fp16", "int8"]),
        ("", ["fp32"]),
    ],
)  # fmt: skip
def test_precisions_of_processors(flags: str, expected: list[str]) -> None:
    assert info.cpu_precisions(flags.split()) == expected


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((5, 2), ["fp32"]),
        ((7, 0), ["fp32", "fp16", "int8"]),
        ((8, 0), ["fp32", "fp16", "int8", "bf16", "tf32"]),
        ((10, 0), ["fp32", "fp16", "int8", "bf16", "tf32"]),
    ],
)
def test_precisions_of_gpus(capability: tuple[int, int], expected: list[str]) -> None:
    assert info.gpu_precisions(capability) == expected


def test_json_says_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("images", "annotations"):
        (tmp_path / "stickerscenes" / folder / "dev").mkdir(parents=True)
    (tmp_path / "stickerscenes" / "images" / "test").mkdir()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setenv("OVSEG_HOME", str(tmp_path / "home"))
    info.main(["--json"])
    about = json.loads(capsys.readouterr().out)
    assert about["versions"]["python"] == platform.python_version()
    assert about["versions"]["torch"] == importlib.metadata.version("torch")
    assert "missing" not in about["versions"].values()
    assert about["folders"] == {
        "weights": str(tmp_path / "home" / "weights"),
        "data sets": str(tmp_path),
    }
    states = about["data sets"]
    assert states["stickerscenes_dev"] == "there"
    test = tmp_path / "stickerscenes" / "annotations" / "test"
    assert states["stickerscenes_test"] == f"{test} is missing"
    assert [state for state in states.values() if "missing" not in state] == ["there"]
    assert len(about["devices"]) == 1 + torch.cuda.device_count()
    assert about["devices"][0]["threads"] == torch.get_num_threads()

    info.main([])
    text = capsys.readouterr().out
    for value in (*about["versions"].values(), *states, about["devices"][0]["name"]):
        assert value in text


def test_which_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    said = info.gather()["versions"]["detectron2"]
    assert said.startswith(importlib.metadata.version("detectron2"))
    compiled = importlib.util.find_spec("detectron2._C") is not None
    assert said.endswith("with its compiled extension" if compiled else "pure Python")
    monkeypatch.setattr(info.util, "find_spec", lambda name: None)
    assert info.gather()["versions"]["detectron2"] == (
        "missing; OVSeg needs detectron2: run ovseg install-detectron2"
    )
