"""``ovseg video`` from the command line to the video, on a small model with random weights."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from processes import interrupt_call
from tiny_world import SWIN, write_model

from ovseg.cli import video
from ovseg.config import setup_cfg
from ovseg.errors import UserError
from ovseg.predictor import Predictor
from ovseg.video.files import VideoFile, VideoSource
from ovseg.video.smoothing import Smoother

WORDS = ["Oculus", "Ukulele", "blue sky"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The part of a command line that names a small random model."""
    return ["--opts", *write_model(tmp_path_factory.mktemp("model"))]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    noise = np.random.default_rng(0).integers(0, 256, (5, 20, 3), dtype=np.uint8)
    with VideoFile(path, 8) as file:
        for index in range(6):
            part = Image.fromarray(noise[:, index : index + 7])
            file.write(np.asarray(part.resize((84, 60))))
    return path


def run(*args: object) -> int:
    """``ovseg video ...`` in this process; the exit code."""
    try:
        video.main(["--config-file", str(SWIN), "--class-names", *WORDS, *map(str, args)])
    except SystemExit as ended:
        return int(str(ended.code))
    return 0


def test_a_video_in_and_out(
    model: list[str], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels"
    args = ["--input", clip, "--output", tmp_path / "pred", "--save-labels", labels]
    assert run(*args, "--smooth", 0.6, "--reject", 0.3, *model) == 0
    target = tmp_path / "pred" / "clip_overlay.avi"
    said = capsys.readouterr().out
    assert re.search(rf"6 frames, [\d.]+ frames a second; result in {re.escape(str(target))}", said)
    written = VideoSource(str(target))
    frames = list(written)
    assert len(frames) == 6
    assert written.rate == pytest.approx(8)
    assert frames[0].shape[1] > 640

    # label maps are those of the API, frame after frame
    predictor, smoother = Predictor(setup_cfg(SWIN, model[1:])), Smoother(0.6)
    assert len(list(labels.iterdir())) == 6
    for index, frame in enumerate(VideoSource(str(clip))):
        expected = predictor.encode(frame).segment(WORDS, smoother=smoother, reject=0.3).labels
        with Image.open(labels / f"{index:06d}.png") as file:
            found = np.asarray(file).astype(int)
        np.testing.assert_array_equal(np.where(found == 255, -1, found), expected)
    with pytest.raises(UserError, match="class_probs and smoother do not go together"):
        predictor.encode(frame).segment(WORDS, smoother=smoother, class_probs=True)


class Camera:
    """What OpenCV gives for a camera that sees noise."""

    def isOpened(self) -> bool:
        return True

    def get(self, _: int) -> float:
        return -1.0  # as cameras that know neither rate nor number of frames

    def read(self) -> tuple[bool, np.ndarray]:
        return True, np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)

    def release(self) -> None: ...


def test_a_camera_is_ended_by_ctrl_c(
    model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    of_files = cv2.VideoCapture
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda source: Camera() if source == 1 else of_files(source)
    )
    interrupt_call(monkeypatch, Predictor, "encode", 3)
    assert run("--input", 1, "--output", tmp_path, *model) == 0  # the way to end it
    out, err = capsys.readouterr()
    assert "2 frames, " in out
    assert "error" not in err
    monkeypatch.undo()
    written = VideoSource(str(tmp_path / "camera1_overlay.mp4"))
    assert len(list(written)) == 2
    assert written.rate == pytest.approx(25)


def test_a_video_that_breaks_off_is_kept(
    model: list[str], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    iterate = VideoSource.__iter__

    def cut(self: VideoSource) -> object:
        for frame, _ in zip(iterate(self), range(3), strict=False):
            yield frame
        self.count = 3

    monkeypatch.setattr(VideoSource, "__iter__", cut)
    assert run("--input", clip, "--output", tmp_path / "out.mp4", *model) == 1
    out, err = capsys.readouterr()
    assert "breaks off after 3 of 6 frames; what was read is kept" in err
    assert "3 frames, " in out
    monkeypatch.undo()
    assert len(list(VideoSource(str(tmp_path / "out.mp4")))) == 3


def test_ctrl_c_keeps_what_is_done(
    model: list[str], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    interrupt_call(monkeypatch, Predictor, "encode", 3)
    assert run("--input", clip, "--output", tmp_path / "out.avi", *model) == 130
    assert "interrupted" in capsys.readouterr().err
    assert len(list(VideoSource(str(tmp_path / "out.avi")))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.avi"]


def test_ctrl_c_before_the_first_frame(
    model: list[str], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    interrupt_call(monkeypatch, Predictor, "encode", 1)
    assert run("--input", clip, "--output", tmp_path / "out.avi", *model) == 130
    assert "gave no frame" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_so_many_frames_in_a_window(
    model: list[str],
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown: list[int] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(video, "show", lambda picture, wait_ms: shown.append(wait_ms) or True)
    assert run("--input", clip, "--max-frames", 2, *model) == 0
    assert shown == [1, 1]
    assert "2 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--smooth", "1"], "--smooth 1.0 must be at least 0 and less than 1"),
        (["--reject", "1.5"], "--reject 1.5 must lie in 0..1"),
        (["--max-frames", "0"], "--max-frames 0 must be at least 1"),
        (["--input", "none.mp4"], "'none.mp4' does not exist"),
        (["--input", __file__], "cannot be opened as a video"),
        (["--input", "²"], "'²' does not exist"),
        (["--output", "pred.webm"], ".webm files cannot be written"),
        (
            ["--smooth", "0.5", "--opts", "TEST.AUG.ENABLED", "True"],
            "--smooth 0.5 needs one view of each frame",
        ),
        (
            ["--smooth", "0.5", "--opts", "TEST.SLIDING_WINDOW", "True"],
            "--smooth 0.5 needs one view of each frame",
        ),
        (
            ["--opts", "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "true"],
            "PANOPTIC_ON True has no effect in ovseg video, which writes label maps alone",
        ),
    ],
)
def test_bad_options(
    options: list[str], message: str, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--input", str(clip), "--output", "nowhere", *options]
    assert run(*given) == 2
    assert message in capsys.readouterr().err
    assert not Path("nowhere").exists()


def test_label_maps_of_two_runs_are_not_mixed(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "000007.png").touch()
    args = ["--input", clip, "--output", tmp_path / "out", "--save-labels", labels]
    assert run(*args) == 2
    assert "holds label maps of an earlier run (000007.png); remove them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_input_is_not_overwritten(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--input", clip, "--output", clip) == 2
    assert "would overwrite the input" in capsys.readouterr().err
