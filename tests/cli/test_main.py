"""The ``ovseg`` command: its table, and that a mistake is answered before anything is loaded."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import run_process
from tiny_world import CONFIGS

import ovseg
from ovseg import cli
from ovseg.cli import segment
from ovseg.errors import Parser

ROOT = CONFIGS.parent
SAMPLE = ROOT / "resources" / "samples" / "ball.jpg"
TINY = str(CONFIGS / "ovseg_tiny.yaml")
HEAVY = ("torch", "torchvision", "detectron2", "cv2", "open_clip", "scipy", "matplotlib")

# runs commands one after the other; says of each how it ended and which libraries are loaded
_RUN = """
import contextlib, io, json, sys
from ovseg.cli import main
commands, heavy = json.loads(sys.argv[1]), json.loads(sys.argv[2])
ends = []
for command in commands:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(command)
        except SystemExit as end:
            code = end.code or 0
    ends.append([code, out.getvalue(), err.getvalue(), [m for m in heavy if m in sys.modules]])
print(json.dumps(ends))
"""


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return run_process(sys.executable, *arguments, cwd=cwd)


def commands() -> list[str]:
    return list(cli.COMMANDS)


def answers(given: list[list[str]]) -> list[tuple[int, str, str, list[str]]]:
    done = python("-c", _RUN, json.dumps(given), json.dumps(HEAVY))
    assert done.returncode == 0, done.stderr
    return [tuple(end) for end in json.loads(done.stdout)]


def test_help_is_a_table_of_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    alone = capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == alone
    lines = [line.split(maxsplit=1) for line in alone.splitlines()]
    assert [[name, what] for name, what in cli.COMMANDS.items()] == [
        line for line in lines if line and line[0] in cli.COMMANDS
    ]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"ovseg {ovseg.__version__}\n"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("segmet", "ovseg has no command 'segmet'; did you mean segment?"),
        ("eval", "did you mean evaluate"),
        ("xyz", "there are segment, video, label, web, train, evaluate"),
        ("--colour", "unrecognized arguments: --colour; see --help"),
    ],
)
def test_unknown_commands(command: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert expected in line


@pytest.mark.parametrize("command", commands())
def test_every_command_has_the_same_form(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"ovseg.cli.{command.replace('-', '_')}")
    assert isinstance(module.build_parser(), Parser)
    before = list(sys.argv)
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: ovseg {command} ")
    assert sys.argv == before


def test_help_and_wrong_options_load_nothing() -> None:
    given = [["--help"], *([command, "--help"] for command in commands())]
    wrong = [[command, "--colour", "red"] for command in commands()]
    for command, (code, out, _, heavy) in zip(given, answers(given), strict=True):
        assert (command, code, heavy) == (command, 0, [])
        assert out.startswith("usage: ovseg")
    for command, (code, _, err, heavy) in zip(wrong, answers(wrong), strict=True):
        assert (command, code, heavy) == (command, 2, [])
        assert err.startswith("error: ")
        assert err.endswith("see --help\n")
        assert len(err.splitlines()) == 1


def test_mistakes_that_can_be_seen_at_once_load_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\nimages: .\nlables: .\nclasses: [a]\n")
    picture = ["segment", "--input", str(SAMPLE), "--output", str(tmp_path / "out")]
    word = [*picture, "--class-names", "b"]
    data = ["MODEL.WEIGHTS", "x.pth", "DATASETS.TEST"]
    expected = {
        "input 'gone.jpg'": ["segment", "--input", "gone.jpg"],
        "no class names": [*picture, "--class-names"],
        "class name 'B' is given twice": [*picture, "--class-names", "b", "B"],
        "--output 'x.png' is one file name for 2": [
            *("segment", "--class-names", "b", "--output", "x.png", "--input", str(SAMPLE)),
            str(SAMPLE.with_name("mouse.jpg")),
        ],
        "--config-file 'a.yaml': no such": [*word, "--config-file", "a.yaml"],
        "--config-file 'b.yaml': no such": ["train", "--config-file", "b.yaml"],
        "no config; give --config-file": ["evaluate", *data, "stickerscenes_dev"],
        "--save-proposals 'x': add --eval-only": [
            *("train", "--config-file", TINY, "--save-proposals", "x")
        ],
        "did you mean pascalvoc20_sem_seg_val": [
            *("evaluate", "--config-file", TINY, *data, '("pascalvoc_sem_seg_val",)')
        ],
        "'stickerscenes_trian' is not registered; did you mean stickerscenes_train": [
            *("train", "--config-file", TINY, "DATASETS.TRAIN", "stickerscenes_trian")
        ],
        "did you mean ade20k_sem_seg_val": [
            *("analyze", "--config-file", TINY, *data, "coco_2017_val,ade20k_sem_seg_vl")
        ],
        "data set file 'gone1.yaml' cannot be read (No such file": [
            *("train", "--config-file", TINY, "--dataset", "gone1.yaml")
        ],
        "data set file 'gone2.yaml' cannot be read (No such file": [
            *("evaluate", "--config-file", TINY, "--dataset", "gone2.yaml", *data[:2])
        ],
        "data set file 'gone 3.yaml' cannot be read (No such file": [
            *("search", "--config-file", TINY, "DATASETS.CUSTOM", "('gone 3.yaml', 'x')")
        ],
        "data set file 'gone4.yaml' cannot be read (No such file": [
            *("analyze", "--config-file", TINY, "DATASETS.CUSTOM", "gone4.yaml")
        ],
        "MODEL.WEIGHTS 'x.pth': there is no such file": [
            *("evaluate", "--config-file", TINY, *data, "stickerscenes_dev")
        ],
        "MODEL.WEIGHTS 'y.pth': there is no such file": [
            *("train", "--config-file", TINY, "MODEL.WEIGHTS", "y.pth")
        ],
        "MODEL.WEIGHTS 'z.pth': there is no such file": [
            *(*word, "--config-file", TINY, "--opts", "MODEL.WEIGHTS", "z.pth")
        ],
        "checkpoint 'gone5.pth' does not exist": ["weights", "convert", "gone5.pth", "out.pkl"],
        "checkpoint 'gone6.pth' does not exist": ["weights", "export", "gone6.pth", "out.pth"],
        "checkpoint 'gone7.pth' does not exist": ["weights", "swap", "take", "gone7.pth", "out.pt"],
        "unknown config key SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR": [
            *("train", "--config-file", TINY, "SOLVER.BASE_LRR", "1")
        ],
        "config key SOLVER.MAX_ITER: 'many' is no value for it; it needs a whole number": [
            *("train", "--config-file", TINY, "SOLVER.MAX_ITER", "many")
        ],
        "config key SOLVER.GAMMA has no value": ["train", "--config-file", TINY, "SOLVER.GAMMA"],
        "TEST.REJECT 2.0 must lie in 0..1": [
            *("evaluate", "--config-file", TINY, *data[:2], "TEST.REJECT", "2")
        ],
        "unknown config key MODEL.NOPE": [*word, "--opts", "MODEL.NOPE", "1"],
        "unknown config key MODEL.NOPE2": [
            *(*word, "--model", "swinB-vitL14", "--opts", "MODEL.NOPE2", "1")
        ],
        "model 'nope': neither a known name nor a path": [*word, "--model", "nope"],
        "CLIP_MODEL_NAME 'ViT-B/17' is neither a file nor a model of open_clip": [
            *(*word, "--opts", "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", "ViT-B/17")
        ],
        "ovseg://nope: there are no weights of that name": [
            *("search", "--config-file", TINY, "MODEL.WEIGHTS", "ovseg://nope")
        ],
        "config key MODEL.WEIGHTS: empty": ["evaluate", "--config-file", TINY],
        "--choose-on 'nope' is not among DATASETS.TEST": [
            *("search", "--config-file", TINY, "--choose-on", "nope"),
            *("MODEL.WEIGHTS", "ovseg://tiny", "DATASETS.TEST", "stickerscenes_dev"),
        ],
        "folder of proposals 'gone8' does not exist": [
            *("evaluate", "--config-file", TINY, "--load-proposals", "gone8"),
            *("MODEL.WEIGHTS", "ovseg://tiny"),
        ],
        "folder of proposals 'gone9' does not exist": [*word, "--load-proposals", "gone9"],
        f"config key OUTPUT_DIR: {TINY!r} is a file": [
            *("train", "--config-file", TINY, "OUTPUT_DIR", TINY)
        ],
        f"--output '{TINY}/a' cannot be made, {TINY} is a file": [
            *("analyze", "--config-file", TINY, "--output", f"{TINY}/a"),
            *("MODEL.WEIGHTS", "ovseg://tiny"),
        ],
        "bad.yaml: unknown key 'lables'; did you mean labels": [
            *("train", "--config-file", TINY, "--dataset", str(bad))
        ],
        "--weights 2.0 is outside 0..1": ["search", "--config-file", TINY, "--weights", "2"],
        "--limit 0 is too small": ["analyze", "--config-file", TINY, "--limit", "0"],
    }  # fmt: skip
    ends = answers(list(expected.values()))
    for message, (code, _, err, heavy) in zip(expected, ends, strict=True):
        assert (message, code, heavy) == (message, 2, [])
        assert message in err
        assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [bad]


def test_names_that_a_command_does_not_look_at_are_not_checked() -> None:
    # stopped by a device that is none, with everything loaded
    opts = ["DATASETS.TEST", "x", "DATASETS.TRAIN", "y", "MODEL.DEVICE", "gpu"]
    opts += ["MODEL.WEIGHTS", "ovseg://tiny", "DATASETS.TEST", "stickerscenes_frozen"]
    ((code, _, err, heavy),) = answers([["evaluate", "--config-file", TINY, *opts]])
    assert code == 2
    assert "MODEL.DEVICE: 'gpu' is no device" in err
    assert "torch" in heavy


def test_a_missing_detectron2_is_one_line(tmp_path: Path) -> None:
    model = ["--config-file", TINY, "MODEL.WEIGHTS", "ovseg://ovseg_tiny.pth"]
    given = [
        ["segment", "--input", str(SAMPLE), "--output", str(tmp_path)],
        ["train", "--config-file", TINY],
        ["evaluate", *model, "DATASETS.TEST", "stickerscenes_frozen"],
        ["search", *model, "DATASETS.TEST", "stickerscenes_frozen"],
        ["analyze", *model, "DATASETS.TEST", "stickerscenes_frozen"],
    ]
    blocked = f"import sys; sys.modules['detectron2'] = None\n{_RUN}"
    done = python("-c", blocked, json.dumps(given), "[]")
    assert done.returncode == 0, done.stderr
    for command, (code, _, err, _) in zip(given, json.loads(done.stdout), strict=True):
        line = "error: OVSeg needs detectron2: run ovseg install-detectron2\n"
        assert (command[0], code, err) == (command[0], 2, line)


def test_as_a_module_from_any_folder(tmp_path: Path) -> None:
    done = python("-m", "ovseg", "segment", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ovseg segment ")


_LEAN = """
import sys
from ovseg.cli.lean_imports import import_libraries
import_libraries()
import torch
from torchvision.ops import roi_align
import open_clip
import detectron2.modeling
import ovseg.predictor
names = "torch._dynamo", "torch._dynamo.utils", "timm", "transformers", "matplotlib", "pandas"
assert not [name for name in names if name in sys.modules]
image = torch.arange(64.0).view(1, 1, 8, 8)
pooled = roi_align(image, [torch.tensor([[0.0, 0.0, 8.0, 8.0]])], 2, aligned=True)
assert torch.allclose(pooled, torch.nn.functional.avg_pool2d(image, 4))
torchvision_asks = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
from torch._dynamo.utils import counters, is_compile_supported
assert torchvision_asks == is_compile_supported("cpu")
import timm
assert timm.list_models()
from ovseg.modeling.clip import build_untrained_clip
text = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
vision = {"timm_model_name": "test_vit", "image_size": 160}
towers = {"vision_cfg": vision, "text_cfg": text}
build_untrained_clip({"embed_dim": 8, "custom_text": True, **towers}, 0)
"""


def test_what_a_segmentation_does_not_need_is_imported_when_it_is() -> None:
    done = python("-W", "ignore", "-c", _LEAN)
    assert done.returncode == 0, done.stderr


def test_the_command_gives_what_the_function_gives(tmp_path: Path) -> None:
    arguments = ["--class-names", "soccer ball", "grass", "blue sky", "--input", str(SAMPLE)]
    device = ["--opts", "MODEL.DEVICE", "cpu"]
    done = python(
        *("-m", "ovseg", "segment", *arguments, "--output", str(tmp_path / "a.png"), *device)
    )
    # progress bars apart, nothing is said on the way, not even by a library
    assert (done.returncode, done.stderr) == (0, "")
    segment.main([*arguments, "--output", str(tmp_path / "b.png"), *device])
    labels = [np.asarray(Image.open(tmp_path / f"{name}_labels.png")) for name in "ab"]
    assert len(np.unique(labels[0])) > 1
    np.testing.assert_array_equal(*labels)
