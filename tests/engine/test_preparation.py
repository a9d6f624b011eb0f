"""What methods of a comparison need is made once, in stages, and handed to their runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ovseg.cli import label
from ovseg.engine import comparison, preparation
from ovseg.engine.comparison import Comparison, known_methods
from ovseg.engine.preparation import PREPARATIONS, Preparation, whole_command
from ovseg.errors import UserError

NAMES = {
    "folder": "made here", "network": "net", "configs": "c", "scenes": "s", "clip": "clip.pt",
    "train": "a,b", "unlabelled": "more", "min_score": "0.5",
    "custom": "",
}  # fmt: skip


def test_stages_are_done_once_and_a_broken_one_again(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "first", tmp_path / "second"
    need = Preparation(
        ((f"{first}", "ovseg one {opts}"), (f"{second}", "ovseg two --of {train}")),
        ("SOME.KEY", "{folder}/x"),
    )
    calls: list[list[str]] = []
    fails = True

    def call(command: list[str]) -> None:
        calls.append(command[3:])
        (first if command[3] == "one" else second).touch()  # saved on the way
        if fails and command[3] == "two":
            raise UserError("it failed")

    def run() -> list[str]:
        calls.clear()
        return need.run(NAMES, ["K", "v w"], call)

    with pytest.raises(UserError, match="it failed"):
        run()
    assert calls == [["one", "K", "v w"], ["two", "--of", "a,b"]]
    fails = False
    assert run() == ["SOME.KEY", "made here/x"]
    assert calls == [["two", "--of", "a,b"]]
    run()
    assert calls == []
    second.unlink()
    with pytest.raises(UserError, match=f"{second} was not written by ovseg, see above"):
        need.run(NAMES, [], lambda command: None)


@pytest.mark.parametrize("method", PREPARATIONS)
def test_every_stage_is_a_command_that_there_is(method: str) -> None:
    need = PREPARATIONS[method]
    assert {method, need.network or method} <= set(known_methods())
    for file, command in need.stages:
        start, program, *arguments = whole_command(command, NAMES, ["KEY", "value"])
        assert start == sys.executable
        assert (command.count("{opts}") == 1) == ("KEY" in arguments)
        assert file.format_map(NAMES).startswith("made here/")
        if program == "-m":
            assert arguments[:2] == ["ovseg", "label"]
            read = label.build_parser().parse_args(arguments[2:])
            assert (read.dataset, read.opts[:2]) == ("more", ["KEY", "value"])
            continue
        assert Path(program).is_file()
        asked = subprocess.run([sys.executable, program, "--help"], capture_output=True, text=True)
        options = {part for part in arguments if part.startswith("--")}
        assert all(option in asked.stdout for option in options)
    assert len(need.gives) % 2 == 0


def test_scripts_need_a_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "clone_folder", lambda: None)
    with pytest.raises(UserError, match=r"train\.py is part of a clone; run the comparison from"):
        whole_command("open_clip_training/train.py", NAMES, [])


def test_who_needs_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    def call(method: str, command: list[str]) -> None:
        calls.append((method, Path(command[1]).stem))
        output = command[command.index("--output") + 1]
        file = Path(output) if "." in Path(output).name else Path(output) / "summary.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    monkeypatch.setattr(comparison, "_call", call)
    trained: list[tuple[str, int]] = []
    monkeypatch.setattr(Comparison, "_train", lambda self, *run: trained.append(run[:2]))
    monkeypatch.chdir(tmp_path)
    opts = ("MODEL.DEVICE", "cpu")
    plan = Comparison(("ovseg", "lseg"), (4, 5), 10, "stickerscenes_dev", Path("out"), opts)
    assert plan._prepare("lseg", 4) == []
    # one adapted CLIP for all seeds, of the first one's network
    given = ["MODEL.CLIP_ADAPTER.CLIP_PRETRAINED", "out/prepared/adapted.pt"]
    assert plan._prepare("ovseg", 5) == plan._prepare("ovseg", 4) == given
    # which the other backbone has too; what the others start from it has not
    assert plan._prepare("ovseg_swin", 4) == [*given, "MODEL.WEIGHTS", ""]
    assert trained == [("zegformer", 4)] * 3
    assert calls == [("ovseg", "collect_pairs"), ("ovseg", "train")]
    # not where the file of the config is there, nor where the comparison is given another
    Path("output/clip_tiny").mkdir(parents=True)
    Path("output/clip_tiny/text_prompts.pt").touch()
    assert plan._prepare("simbaseline", 4) == []
    Path("output/clip_tiny/adapted.pt").touch()
    assert plan._prepare("ovseg_swin", 4) == ["MODEL.WEIGHTS", ""]
    told = Comparison(("openseg",), (0,), 10, "d", Path("out"), ("INPUT.CAPTION_WORDS", "x.json"))
    assert told._prepare("openseg", 0) == []
    assert len(calls) == 2
    assert plan._prepare("openseg", 4) == ["INPUT.CAPTION_WORDS", "out/prepared/caption_words.json"]


def test_ovseg_is_zegformers_network_with_the_adapted_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(comparison, "_call", lambda name, command: calls.append((name, command)))
    plan = Comparison(("ovseg",), (4, 5), 10, "stickerscenes_dev", tmp_path, ())
    plan._train("ovseg", 5, ["MODEL.CLIP_ADAPTER.CLIP_PRETRAINED", "adapted.pt"])
    (first, training), (second, swap) = calls
    assert (first, second) == ("zegformer", "ovseg")
    assert training[3] == "train"
    assert training[training.index("SEED") + 1] == "5"
    network, result = (tmp_path / m / "seed_5" / "model_final.pth" for m in ("zegformer", "ovseg"))
    assert swap[3:] == ["weights", "swap", "put", str(network), "adapted.pt", str(result)]
    assert result.parent.is_dir()
    # with another backbone it is trained
    calls.clear()
    plan._train("ovseg_swin", 5, [])
    assert [(name, command[3]) for name, command in calls] == [("ovseg_swin", "train")]


def test_time_left_is_that_of_finished_runs(tmp_path: Path) -> None:
    plan = Comparison(("fcn", "lseg"), (0, 1), 10, "d", tmp_path, ())
    runs = [(method, seed) for seed in (0, 1) for method in ("fcn", "lseg")]
    assert plan._time_left(runs) == ""
    for method, seconds in (("fcn", 100), ("lseg", 3000)):
        folder = plan.folder(method, 0)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(f'{{"seconds": {seconds}}}')
        left = plan._time_left(runs)
        # three runs like the only one; then one of each
        assert left == ("; about 05:00 left" if method == "fcn" else "; about 51:40 left")


def test_a_data_set_that_is_missing_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Comparison(("selftrain",), (0,), 10, "d", tmp_path, ())

    def load(name: str) -> list[Any]:
        if name == "stickerscenes_more":
            raise UserError(f"data set {name}: folder x is missing; make it")
        return []

    monkeypatch.setattr(comparison, "load_dataset", load)
    with pytest.raises(UserError, match=r"selftrain: data set stickerscenes_more: .* --methods\)"):
        plan.check()
