"""The comparison of methods: its runs are the ordinary commands, and it goes on where it was."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import said
from detectron2.config import CfgNode
from held_locks import held
from labelling_world import rows_of
from PIL import Image
from tiny_world import as_pairs, tiny_world
from torch import nn

from ovseg.cli import compare
from ovseg.data.datasets import load_dataset
from ovseg.engine import comparison
from ovseg.engine.comparison import Comparison
from ovseg.engine.preparation import PREPARATIONS
from ovseg.errors import UserError

#: makes the configs of configs/methods small
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES": "predefined",
    "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE": "False",
    "MODEL.SEM_SEG_HEAD.EMBEDDING_DIM": 16,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "INPUT.MIN_SIZE_TRAIN": [32, 40],
    "INPUT.MIN_SIZE_TEST": 32,
    "INPUT.CROP.SIZE": [32, 32],
    "INPUT.SIZE_DIVISIBILITY": 32,
    "SOLVER.IMS_PER_BATCH": 2,
    "DATALOADER.NUM_WORKERS": 0,
}


def own_data(folder: Path) -> Path:
    """The yaml file of a data set of one image."""
    for kind in ("photos", "maps"):
        (folder / kind).mkdir()
        Image.new("L", (48, 40)).save(folder / kind / "0.png")
    file = folder / "odd.yaml"
    file.write_text("name: odd\nimages: photos\nlabels: maps\nimage_ext: png\nclasses: [a, b]\n")
    return file


def test_an_image_that_cannot_be_read_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []

    class Model(nn.Linear):
        def forward(self, batch: Any) -> Any:
            shown.extend(example["image"] for example in batch)
            return [{"labels": torch.zeros(1)} for _ in batch]

    class Checkpointer:
        def __init__(self, *_: object, **__: object) -> None: ...

        def load(self, _: str) -> None: ...

    batches = [[{"error": "broken"}], [{"image": 1}, {"error": "broken"}], [{"image": 2}]]
    monkeypatch.setattr(comparison, "_WARM_UP", 1)
    monkeypatch.setattr(comparison, "OVSegCheckpointer", Checkpointer)
    monkeypatch.setattr(comparison.Trainer, "build_model", lambda cfg: Model(3, 2))
    monkeypatch.setattr(comparison.Trainer, "build_test_loader", lambda cfg, name: batches)
    found = comparison.measure(CfgNode({"MODEL": {"WEIGHTS": ""}}), "any")
    assert shown == [1, 2]
    assert found["parameters"] == 8
    assert found["images a second"] > 0


@pytest.mark.usefixtures("forget_data_sets")
def test_it_evaluates_on_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans: list[Comparison] = []

    def run(self: Comparison, progress: Callable[[str], None]) -> Iterator[None]:
        plans.append(self)
        yield from ()

    monkeypatch.setattr(Comparison, "run", run)
    opts = ["DATASETS.TRAIN", "odd", "DATASETS.CUSTOM", f"({str(own_data(tmp_path))!r},)"]
    command = ["--methods", "fcn", "--output", str(tmp_path / "out"), "--dataset"]
    compare.main([*command, "odd", *opts])
    assert [plan.dataset for plan in plans] == ["odd"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        compare.main([*command, "od", *opts])
    assert "data set 'od' is not registered" in said(capsys)[0]


@pytest.mark.usefixtures("forget_data_sets")
def test_it_trains_evaluates_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []

    run_process = subprocess.run

    def here(command: list[str], **settings: Any) -> subprocess.CompletedProcess[Any]:
        """Runs ``ovseg COMMAND`` in this process, which is quicker."""
        from ovseg.cli import evaluate, label, train

        if command[1:3] != ["-m", "ovseg"]:
            return run_process(command, **settings)
        calls.append(command[3:])
        commands: dict[str, Any] = {"train": train, "evaluate": evaluate, "label": label}
        commands[command[3]].main(command[4:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(comparison.subprocess, "run", here)
    with tiny_world(tmp_path) as clip:
        opts = as_pairs({**SMALL, "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME": clip})
        opts += ["DATASETS.TRAIN", "tiny_train", "MODEL.METHOD.UNLABELLED", "tiny_train"]
        opts += ["DATASETS.CUSTOM", str(own_data(tmp_path))]
        # after two steps a teacher is sure of nothing
        opts += ["MODEL.METHOD.MIN_SCORE", "0.001"]
        output = tmp_path / "compared"
        command = ["--steps", "2", "--dataset", "tiny_dev", "--output", str(output)]
        monkeypatch.setattr(compare, "check_dataset_names", lambda names: None)

        def run(*methods: str, seeds: str = "0") -> dict:
            compare.main([*command, "--methods", ",".join(methods), "--seeds", seeds, *opts])
            content: dict = json.loads((output / "comparison.json").read_text())
            return content["results"]

        results = run("spnet")
        assert [call[0] for call in calls] == ["train", "evaluate"]
        (found,) = results["spnet"]
        evaluated = output / "spnet" / "seed_0" / "inference" / "tiny_dev" / "results.json"
        assert found["percent"] == json.loads(evaluated.read_text())["percent"]
        assert 0 < found["trained parameters"] < found["parameters"]
        # another method: the first one is not done again
        assert set(run("spnet", "lseg")) == {"spnet", "lseg"}
        assert [Path(call[2]).stem for call in calls[2:]] == ["lseg", "lseg"]
        # a run that was stopped after its training is only evaluated
        (output / "lseg" / "seed_0" / "result.json").unlink()
        run("spnet", "lseg")
        assert [call[0] for call in calls[4:]] == ["evaluate"]
        # a teacher is the comparison's own run of its method, which is then evaluated alone
        calls.clear()
        results = run("selftrain", "deeplabv3plus")
        assert [(call[0], Path(call[2]).stem) for call in calls] == [
            ("train", "deeplabv3plus"), ("label", "deeplabv3plus"), ("train", "selftrain"),
            ("evaluate", "selftrain"), ("evaluate", "deeplabv3plus"),
        ]  # fmt: skip
        student = output / "selftrain" / "seed_0"
        label_rows = rows_of(student / "pseudo_labels")
        assert len(label_rows) == len(load_dataset("tiny_train"))
        data_sets = yaml.safe_load((student / "config.yaml").read_text())["DATASETS"]
        assert data_sets["TRAIN"] == ["tiny_train", "pseudo_labels"]
        labelled = student / "pseudo_labels" / "dataset.yaml"
        assert data_sets["CUSTOM"] == [str(tmp_path / "odd.yaml"), str(labelled)]
        description = yaml.safe_load((student / "pseudo_labels" / "dataset.yaml").read_text())
        assert description["min_score"] == 0.001
        assert "about" in capsys.readouterr().out
        run("lseg")
        assert "| lseg " in (output / "comparison.md").read_text()
        assert (output / "comparison.png").is_file()

        # another process does a run: it is left to it, and the others are done
        calls.clear()
        with held(output / "fcn" / ".seed_0.lock"):
            run("fcn", "lsegplus")
        assert {Path(call[2]).stem for call in calls} == {"lsegplus"}
        assert "run 1 of 2: fcn, seed 0 is left to another process" in capsys.readouterr().out

        with pytest.raises(SystemExit):
            compare.main([*command, "--steps", "3", "--methods", "spnet", *opts])
        assert "was begun with other settings (--steps 2, now 3)" in said(capsys)[0]


def test_a_package_that_is_missing_is_named_before_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = replace(PREPARATIONS["openseg"], package=("no_such_module", "pip install it"))
    monkeypatch.setitem(PREPARATIONS, "openseg", needed)
    monkeypatch.setattr(comparison, "load_dataset", lambda name: [])
    plan = Comparison(("openseg",), (0,), 1, "stickerscenes_test", tmp_path, ())
    with pytest.raises(UserError, match="openseg needs no_such_module; install it: pip install it"):
        plan.check()
    replace(plan, opts=("INPUT.CAPTION_WORDS", "words.json")).check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps 0 is too small; give 1 or more"),
        (["--seeds", "one"], "--seeds 'one': give whole numbers from 0 on, such as 0,1,2"),
        (["--seeds", ","], "--seeds ',': give whole numbers from 0 on"),
        (["--dataset", "stickerscenes_tst"], "did you mean stickerscenes_test"),
        (["--methods", "lsegg"], "--methods 'lsegg' is unknown; choose from deeplabv3plus, "),
    ],
)
def test_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        compare.main(["--output", str(tmp_path / "new"), *arguments])
    assert message in said(capsys)[0]
    assert not (tmp_path / "new").exists()
