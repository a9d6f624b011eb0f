"""``ovseg weights``: its subcommands, and what it answers to mistakes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from hashlib import md5
from pathlib import Path

import pytest
import torch
from conftest import ROOT, said
from local_server import serving
from torchvision.models import resnet50

from ovseg.cli.weights import main
from ovseg.pretrained import RELEASED
from ovseg.utils.checkpoint_files import read_checkpoint
from ovseg.utils.downloads import DriveFile

TINY = ROOT / "resources" / "ovseg_tiny.pth"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_list_says_what_is_here(own_home: Path, capsys) -> None:
    (own_home / "weights").mkdir(parents=True)
    damaged = own_home / "weights" / "ovseg_R101c_vitB16_ft_mpt.pth"
    damaged.write_bytes(b"half a file")
    main(["list"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert RELEASED.keys() <= lines.keys()
    assert "16.4 MiB" in lines["tiny"]
    assert str(TINY) in lines["tiny"]
    assert lines["swinB-vitL14"].rstrip().endswith("no")
    assert "drive.google.com" in lines["swinB-vitL14"]
    assert f"'{damaged}' is damaged" in lines["R101c-vitB16"]


def test_fetch_prints_where_it_is(own_home: Path, capsys, monkeypatch) -> None:
    gdown = pytest.importorskip("gdown")
    download, content = gdown.download, b"weights"
    drive = DriveFile("an-id", md5(content).hexdigest()[:6])
    monkeypatch.setitem(RELEASED, "R101c-vitB16", replace(RELEASED["R101c-vitB16"], drive=drive))
    with serving(**{"an-id": content}) as server:
        monkeypatch.setattr(
            gdown, "download", lambda id, **o: download(url=f"{server.address}/{id}", **o)
        )
        main(["fetch", "tiny", "R101c-vitB16"])
    place = own_home / "weights" / "ovseg_R101c_vitB16_ft_mpt.pth"
    assert capsys.readouterr().out.splitlines() == [str(TINY), str(place)]
    assert place.read_bytes() == content


def test_convert_tells_the_kind_by_the_weights(tmp_path: Path) -> None:
    model = resnet50(weights=None)
    # as Lightning saves it
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "a.ckpt")
    main(["convert", str(tmp_path / "a.ckpt"), str(tmp_path / "R-50.pkl")])
    checkpoint = read_checkpoint(tmp_path / "R-50.pkl")
    assert checkpoint.entries["matching_heuristics"]
    assert torch.equal(checkpoint.weights["stem.conv1.weight"], model.conv1.weight)
    assert len(checkpoint.weights) == 265


def test_swap_and_export_take_released_names(tmp_path: Path, capsys) -> None:
    clips = tmp_path / "by_file.pt", tmp_path / "by_name.pt"
    for source, clip in zip((str(TINY), "ovseg://tiny"), clips, strict=True):
        main(["swap", "take", source, str(clip), "--name", "ovseg-tiny-clip"])
    by_file, by_name = (read_checkpoint(clip).weights for clip in clips)
    assert by_file.keys() == by_name.keys()
    assert all(torch.equal(value, by_name[name]) for name, value in by_file.items())
    main(["export", "ovseg://tiny", str(tmp_path / "small.pth")])
    assert (
        read_checkpoint(tmp_path / "small.pth").weights.keys()
        == read_checkpoint(TINY).weights.keys()
    )


def test_swap_and_export(tmp_path: Path, capsys) -> None:
    clip, again, small = (tmp_path / name for name in ("clip.pt", "again.pth", "small.pth"))
    main(["swap", "take", str(TINY), str(clip), "--name", "ovseg-tiny-clip"])
    main(["swap", "put", str(TINY), str(clip), str(again), "--verify"])
    main(["export", str(again), str(small)])
    assert "verified" in capsys.readouterr().out
    before, after = read_checkpoint(TINY).weights, read_checkpoint(small).weights
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_what_is_read_is_not_overwritten(tmp_path: Path, capsys) -> None:
    ovseg, clip = tmp_path / "model_final.pth", tmp_path / "clip.pt"
    content = TINY.read_bytes()
    ovseg.write_bytes(content)
    (tmp_path / "config.yaml").write_text("of the training")
    main(["swap", "take", str(ovseg), str(clip), "--name", "ovseg-tiny-clip"])
    before = clip.read_bytes()
    same = str(tmp_path / "." / "model_final.pth")
    for arguments, what in (
        (["export", str(ovseg), same], f"{same!r} would be overwritten; write to another file"),
        (["swap", "put", str(ovseg), str(clip), same], f"{same!r} would be overwritten"),
        (["swap", "put", str(ovseg), str(clip), str(clip)], f"{str(clip)!r} would be overwritten"),
        (["swap", "take", str(ovseg), same], f"{same!r} would be overwritten"),
        (["convert", str(ovseg), same], f"{same!r} would be overwritten"),
        (["export", str(ovseg), "--safetensors", str(tmp_path)], "is the folder of the checkpoint"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert what in said(capsys)[0]
    assert (ovseg.read_bytes(), clip.read_bytes()) == (content, before)
    assert (tmp_path / "config.yaml").read_text() == "of the training"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required"),
        (["lists"], "invalid choice: 'lists'"),
        (["fetch"], "the following arguments are required: NAME"),
        (["fetch", "huge"], "known are tiny, swinB-vitL14"),
        (["convert", "none.pth", "none.pkl"], "checkpoint 'none.pth' does not exist"),
        (["convert", str(TINY), "none.pkl"], "neither a Swin Transformer"),
        (["swap", "give", "a", "b"], "invalid choice: 'give'"),
        (["swap", "take", "a.pth"], "the following arguments are required: output"),
        (["swap", "take", "ovseg://tny", "c.pt"], "ovseg://tny: there are no weights of that name"),
        (["export", "a.pth"], "nothing to write"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    arguments: list[str], message: str, capsys, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    lines = said(capsys)
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("arguments", [["--help"], ["swap", "take", "--help"], ["fetch", "huge"]])
def test_nothing_heavy_is_imported_for_an_answer(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom ovseg.cli.weights import main\n"
        f"try: main({arguments})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'detectron2', 'open_clip', 'numpy', 'huggingface_hub'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, capture_output=True)
