"""The five scripts: they start anywhere, answer at once, and say in a line what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from processes import run_process

from open_clip_training.common.options import add_run, check_start, resume_path
from ovseg.errors import Parser, UserError

SCRIPTS = ("ablations", "collect_pairs", "pretrain", "pretrain_backbone", "train")
FOLDER = ROOT / "open_clip_training"
# a script as python starts it; its exit code, and what it has imported by then
RUN = """
import runpy, sys
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print("exit", end.code, *(name for name in ("torch", "detectron2") if name in sys.modules))
"""


def run(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = str(FOLDER / f"{script}.py")
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = {[path, *arguments]!r}{RUN}"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_wrong_options_need_no_torch(script: str, tmp_path: Path) -> None:
    shown = run(script, tmp_path, "--help")
    assert shown.stdout.splitlines()[-1] == "exit 0"
    first_line = (FOLDER / f"{script}.py").read_text(encoding="utf-8").splitlines()[0].strip('"')
    assert first_line in shown.stdout
    wrong = run(script, tmp_path, "--wrnog")
    assert wrong.stdout.splitlines() == ["exit 2"]
    (line,) = wrong.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("; see --help")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "needed"),
    [
        ("train", ("--clip", "ViT-B/16", "--train-data", "pairs.csv")),
        ("pretrain", ()),
        ("pretrain_backbone", ("--config-file", str(ROOT / "configs" / "ovseg_tiny.yaml"))),
    ],
)
def test_an_earlier_run_is_not_overwritten(
    script: str, needed: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "pairs.csv").touch()
    (tmp_path / "clip_resume.pt").write_bytes(b"days of work")
    again = run(script, tmp_path, *needed, "--output", "clip.pt")
    assert again.stdout.splitlines() == ["exit 2"]
    assert again.stderr.splitlines() == [
        "error: --output 'clip.pt' has an earlier run (clip_resume.pt); give --resume to go on "
        "with it, another --output, or --overwrite to start anew in its place"
    ]
    assert (tmp_path / "clip_resume.pt").read_bytes() == b"days of work"


def test_how_a_run_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = Parser()
    add_run(parser)
    state = resume_path(tmp_path / "clip.pt")

    def started(*arguments: str) -> tuple[bool, bool]:
        options = parser.parse_args(arguments)
        options.output = tmp_path / "clip.pt"
        check_start(options)
        return options.resume, state.exists()

    assert started() == (False, False)
    assert started("--overwrite") == (False, False)
    state.touch()
    assert started("--resume") == (True, True)
    with pytest.raises(UserError, match="has an earlier run"):
        started()
    with pytest.raises(UserError, match="not allowed with"):
        started("--resume", "--overwrite")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert started("--overwrite") == (True, True)  # it is this run's own
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    assert started("--overwrite") == (False, False)


CONFIG = str(ROOT / "configs" / "ovseg_tiny.yaml")
ADAPT = ("train", "--train-data", "README.md", "--output", "o.pt")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("train", "--clip", "ViT-B/16", "--output", "o.pt", "--train-data", "gone.csv"),
         "--train-data gone.csv is not there (no such file or folder); collect_pairs.py makes it"),
        ((*ADAPT, "--clip", "gone.pt"), "--clip gone.pt is not there (no such file or folder);"),
        ((*ADAPT, "--clip", "ViT-B/17"), "--clip 'ViT-B/17' is neither a file nor a model of open"),
        ((*ADAPT, "--clip", "ViT-B/16", "--eval-data", "my.yaml"), "--eval-data my.yaml is not"),
        ((*ADAPT, "--clip", "ViT-B/16", "--eval-data", "stickerscenes_dve"),
         "--eval-data: data set 'stickerscenes_dve' is not registered; did you mean stickersc"),
        (("pretrain", "--train-data", "gone.csv"), "--train-data gone.csv is not there"),
        (("pretrain", "--root", "gone"), "--root gone is not there"),
        (("pretrain", "--model-config", "gone.json"), "--model-config gone.json is not there"),
        (("pretrain_backbone", "--config-file", CONFIG, "--train-data", "stickerscenes_trian"),
         "--train-data: data set 'stickerscenes_trian' is not registered; did you mean stick"),
        (("pretrain_backbone", "--config-file", "gone.yaml"), "--config-file 'gone.yaml': no such"),
        (("collect_pairs", "--captions", "gone.json", "--config-file", CONFIG, "--output", "o"),
         "--captions gone.json is not there"),
        (("collect_pairs", "--captions", "README.md", "--images", "gone", "--config-file", CONFIG,
          "--output", "o"), "--images gone is not there"),
        (("collect_pairs", "--ground-truth", "stickerscenes_dve", "--config-file", CONFIG,
          "--output", "o"), "--ground-truth: data set 'stickerscenes_dve' is not registered"),
        (("collect_pairs", "--captions", "README.md", "--config-file", "gone.yaml",
          "--output", "o"), "--config-file 'gone.yaml': no such file"),
        (("collect_pairs", "--captions", "README.md", "--config-file", CONFIG, "--output", "o",
          "--opts", "MODEL.WEIGHTS", "gone.pth"), "MODEL.WEIGHTS 'gone.pth': there is no such"),
    ],
)  # fmt: skip
def test_missing_files_and_unknown_data_sets_are_told_without_torch(
    command: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "README.md").touch()
    done = run(command[0], tmp_path, *command[1:])
    assert done.stdout.splitlines() == ["exit 2"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {expected}")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_nothing_patches_the_path() -> None:
    files = sorted(FOLDER.rglob("*.py"))
    assert {FOLDER / f"{script}.py" for script in SCRIPTS} < set(files)
    assert not [file for file in files if "sys.path" in file.read_text(encoding="utf-8")]


_OPTIONS = """
import sys
from open_clip_training.mining.options import parse_arguments
options = parse_arguments(sys.argv[1:])
print(options.ground_truth, *options.opts)
assert "detectron2" not in sys.modules
"""


def test_ground_truth_of_ones_own_by_its_file_or_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: harbour\nimages: .\nlabels: .\nclasses: [sea]\n")
    command = ["--config-file", "configs/ovseg_tiny.yaml", "--output", tmp_path / "out"]
    custom = ["DATASETS.CUSTOM", file]
    for given in (["--ground-truth", file], ["--ground-truth", "harbour", "--opts", *custom]):
        done = run_process(sys.executable, "-c", _OPTIONS, *map(str, [*command, *given]))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == ["harbour", "DATASETS.CUSTOM", str(file)]
