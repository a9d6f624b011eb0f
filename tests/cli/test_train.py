"""Training and evaluation as their user runs them, on a tiny model and a few images."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from processes import run_process
from tiny_world import CONFIGS, SWIN, tiny_world, train_command

from ovseg.cli import train
from ovseg.data import data_check
from ovseg.engine.process_counts import count_processes

ROOT = CONFIGS.parent


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_world(tmp_path_factory.mktemp("world")) as path:
        yield path


@pytest.fixture(scope="module")
def trained(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of two iterations of training."""
    output = tmp_path_factory.mktemp("trained")
    train.main(train_command(clip, output))
    return output


def answer(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """What a command that must fail says, on one line and with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        train.main(argv)
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def results(output: Path, dataset: str) -> dict[str, float | None]:
    file = output / "inference" / dataset / "results.json"
    percent: dict[str, float | None] = json.loads(file.read_text())["percent"]
    return percent


def test_training_leaves_checkpoint_metrics_and_results(trained: Path) -> None:
    checkpoint = torch.load(trained / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == 1
    assert "sem_seg_head.predictor.query_embed.weight" in checkpoint["model"]
    lines = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    assert any("total_loss" in line and line["iteration"] == 1 for line in lines)
    assert any("sem_seg/mIoU" in line for line in lines)
    assert list(trained.glob("events.out.tfevents.*"))
    assert (trained / "config.yaml").is_file()
    assert "Running on cpu" in (trained / "log.txt").read_text()
    assert "mIoU_detectron2" in results(trained, "tiny_dev")


def test_evaluation_of_the_checkpoint_on_several_data_sets(
    clip: Path, trained: Path, tmp_path: Path
) -> None:
    train.main(
        train_command(
            clip,
            tmp_path,
            "--eval-only",
            MODEL__WEIGHTS=trained / "model_final.pth",
            DATASETS__TEST="tiny_dev,tiny_test",
        )
    )
    # the training run evaluated the same weights
    assert results(tmp_path, "tiny_dev") == results(trained, "tiny_dev")
    assert "mIoU_unseen" in results(tmp_path, "tiny_test")
    assert not list(tmp_path.glob("*.pth"))


@pytest.mark.slow
def test_two_processes_of_torchrun_evaluate_as_one_does(
    clip: Path, trained: Path, tmp_path: Path
) -> None:
    # the same images under their registered name, which other processes know too
    overrides: dict[str, object] = {
        "MODEL__WEIGHTS": trained / "model_final.pth",
        "DATASETS__TEST": "stickerscenes_dev",
    }
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = run_process(
        *(sys.executable, *torchrun, "train_net.py"),
        *train_command(clip, tmp_path, "--eval-only", **overrides),
        DETECTRON2_DATASETS=str(clip.parent),
    )
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in (tmp_path / "log.txt").read_text()
    assert results(tmp_path, "stickerscenes_dev") == results(trained, "tiny_dev")


def test_resuming_goes_on_to_the_new_end(clip: Path, trained: Path, tmp_path: Path) -> None:
    trained = Path(shutil.copytree(trained, tmp_path / "out"))  # other tests read the folder
    argv = train_command(clip, trained, "--resume", SOLVER__MAX_ITER=3, DATASETS__TEST="()")
    train.main(argv)
    assert torch.load(trained / "model_final.pth", weights_only=True)["iteration"] == 2
    assert "Starting training from iteration 2" in (trained / "log.txt").read_text()
    lines = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    # the schedule of three iterations, not that of two, which ended in 0
    last = [line["lr"] for line in lines if line["iteration"] == 2 and "lr" in line]
    assert last == [pytest.approx(0.001 * (1 - 2 / 3) ** 0.9)]


def test_published_abbreviation_of_num_gpus(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    said = answer(capsys, train_command(clip, tmp_path, "--num-gpu", "8"))
    assert "--num-gpus 8" in said
    assert "no GPU; leave it out to run in one process on the CPU" in said


def documented_commands() -> list[str]:
    """Every train_net.py command of GETTING_STARTED.md, as one line each."""
    text = (ROOT / "GETTING_STARTED.md").read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if "train_net.py " in line]


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_are_understood(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.chdir(ROOT)
    # their own data set is the user's to write
    described = tmp_path / "my.yaml"
    described.write_text(
        f"name: mine_{tmp_path.name}\nimages: {tmp_path}\nlabels: {tmp_path}\nclasses: [sky, sea]\n"
    )
    words = shlex.split(line)
    argv = [str(described) if word == "my_data.yaml" else word for word in words]
    args = train.build_parser().parse_args(argv[1 + words.index(_script(words)) :])
    cfg = train.setup(args)
    assert args.eval_only == ("--eval-only" in words)
    if "--num-gpu" in words:
        assert count_processes(args.num_gpus, "cuda") == 8
    for key, value in zip(args.opts[::2], args.opts[1::2], strict=True):
        found = functools.reduce(getattr, key.split("."), cfg)
        if isinstance(found, tuple):  # ("one","two",) as the shell hands it over
            assert [str(part) for part in found] == re.findall(r"[\w.]+", value)
            assert not key.startswith("DATASETS.") or set(found) <= set(DatasetCatalog.list())
        else:
            assert str(found) == value


def _script(words: list[str]) -> str:
    return next(word for word in words if word.endswith("train_net.py"))


def test_published_evaluations_are_documented() -> None:
    evaluations = " ".join(line for line in documented_commands() if "--eval-only" in line)
    for name in ("ade20k", "ade20k_full", "pascal_context_59", "pascal_context_459"):
        assert f'"{name}_sem_seg_val\\"' in evaluations
    assert '"pascalvoc20_sem_seg_val\\"' in evaluations


@pytest.mark.parametrize(
    ("options", "overrides", "expected"),
    [
        (
            [],
            {"MODEL__WIEGHTS": "x"},
            "unknown config key MODEL.WIEGHTS; did you mean MODEL.WEIGHTS",
        ),
        (["--eval-only"], {}, "MODEL.WEIGHTS: empty"),
        (["--eval-only"], {"MODEL__WEIGHTS": "gone.pth"}, "'gone.pth'"),
        (
            ["--eval-only"],
            {"DATASETS__TEST": "()", "MODEL__WEIGHTS": "ovseg://tiny"},
            "DATASETS.TEST: empty",
        ),
        (
            [],
            {"DATASETS__TEST": "tiny_tset"},
            "'tiny_tset' is not registered; did you mean tiny_test",
        ),
        ([], {"DATASETS__TEST": "pascalvoc20_sem_seg_val"}, "JPEGImages is missing"),
        ([], {"DATASETS__TRAIN": "tiny_train,tiny_dev"}, "different classes"),
        ([], {"OUTPUT_DIR": "/dev/null/output"}, "OUTPUT_DIR: '/dev/null/output' cannot be made"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    overrides: dict[str, object],
    expected: str,
) -> None:
    assert expected in answer(capsys, train_command(clip, tmp_path, *options, **overrides))


def test_no_config_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert "give --config-file" in answer(capsys, [])


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        ("--num-gpus", "x", 0), ("--num-gpus", "-3", 0), ("--num-processes", "0", 1),
        ("--num-machines", "0", 1), ("--machine-rank", "-1", 0),
    ],
)  # fmt: skip
def test_counts_of_processes(
    capsys: pytest.CaptureFixture[str], option: str, value: str, least: int
) -> None:
    expected = f"argument {option}: {value!r}: give a whole number, {least} or more; see --help"
    assert expected in answer(capsys, [option, value])


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_training_image_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    # the look before the run sees the first image alone, which is intact
    monkeypatch.setattr(data_check, "AT_MOST", 1)
    (tmp_path / "world").mkdir()
    with tiny_world(tmp_path / "world", prefix="broken") as clip:
        for path in sorted((tmp_path / "world/stickerscenes/images/train").iterdir())[1:]:
            path.write_bytes(path.read_bytes()[:80])
        overrides: dict[str, object] = {
            "DATASETS__TRAIN": "broken_train",
            "DATALOADER__NUM_WORKERS": workers,
        }
        said = answer(capsys, train_command(clip, tmp_path / "out", **overrides))
    assert "3 training images cannot be used, more than the 2 that may be left out" in said
    assert ".png" in said
    assert "Traceback" not in said
    log = (tmp_path / "out" / "log.txt").read_text()
    assert said.removeprefix("error: ") in log
    assert "Traceback" not in log


def test_as_a_script(tmp_path: Path) -> None:
    # an unknown key is found with all libraries loaded
    command = ["--eval-only", "--config-file", str(SWIN), "MODEL.WIEGHTS", "x"]
    done = run_process(sys.executable, ROOT / "train_net.py", *command, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()  # no warning of a library either
    assert line.startswith("error: unknown config key MODEL.WIEGHTS")
