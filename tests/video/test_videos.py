"""Videos: frames in and out, smoothing against a plain computation, flicker by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ovseg.errors import UserError
from ovseg.structures import Classified, Regions
from ovseg.video.files import CODECS, VideoFile, VideoSource
from ovseg.video.flicker import Flicker
from ovseg.video.smoothing import Smoother, overlap


def write(path: Path, count: int = 12, size: tuple[int, int] = (48, 64), rate: float = 10) -> Path:
    with VideoFile(path, rate) as video:
        for index in range(count):
            frame = np.zeros((*size, 3), np.uint8)
            frame[:, : 4 * (index + 1)] = (200, 60, 20)  # orange grows from the left
            video.write(frame)
    assert video.count == count
    return path


@pytest.fixture(params=[True, False], ids=["pyav", "opencv"])
def pyav(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether PyAV is installed."""
    if request.param:
        pytest.importorskip("av", reason="PyAV is not installed: pip install 'ovseg[video]'")
    else:
        monkeypatch.setattr("ovseg.video.encoders.find_spec", lambda _: None)
    return bool(request.param)


@pytest.mark.parametrize("suffix", list(CODECS))
def test_frames_come_back(suffix: str, pyav: bool, tmp_path: Path) -> None:
    source = VideoSource(str(write(tmp_path / f"clip{suffix}")))
    assert source.rate == pytest.approx(10)
    frames = list(source)
    assert len(frames) == source.count == source.announced == 12
    assert not source.broke_off
    for index, frame in enumerate(frames):
        assert frame.shape == (48, 64, 3)
        edge = 4 * (index + 1)
        red, _, blue = frame[:, : edge - 3].reshape(-1, 3).mean(axis=0)
        assert red > 180  # RGB, and not BGR
        assert blue < 60
        if index < 11:
            assert frame[:, edge + 3 :].mean() < 12


def test_odd_sizes_are_not_cut(pyav: bool, tmp_path: Path) -> None:
    (frame, *_) = VideoSource(str(write(tmp_path / "clip.mp4", 3, (47, 63))))
    assert frame.shape == (48, 64, 3)


def test_what_browsers_play(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'ovseg[video]'")
    path = write(tmp_path / "clip.mp4", rate=30000 / 1001)
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.codec_context.colorspace == 6  # that of the conversion
        assert float(stream.average_rate) == pytest.approx(30000 / 1001)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # the index comes first


def test_without_pyav_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr("ovseg.video.encoders.find_spec", lambda _: None)
    write(tmp_path / "clip.avi", 2)
    assert not caplog.records
    write(tmp_path / "clip.mp4", 2)
    assert "pip install av" in caplog.text


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        VideoSource(str(tmp_path / "none.mp4"))
    with pytest.raises(UserError, match="is a folder"):
        VideoSource(str(tmp_path))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match="cannot be opened as a video"):
        VideoSource(str(tmp_path / "text.mp4"))
    with pytest.raises(UserError, match="no camera 97"):
        VideoSource("97")


def test_a_video_that_breaks_off(tmp_path: Path) -> None:
    whole = write(tmp_path / "clip.mkv", 60).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    source = VideoSource(str(tmp_path / "cut.mkv"))
    count = len(list(source))
    assert 0 < count < 58
    assert (source.announced, source.broke_off) == (60, True)


def test_the_end_is_judged_by_the_announced_frames(tmp_path: Path) -> None:
    source = VideoSource(str(write(tmp_path / "clip.avi", 20)))
    for count, broke_off in ((20, False), (19, False), (18, True)):
        source.count = count
        assert source.broke_off == broke_off
    source.announced = None
    assert not source.broke_off


def random_frame(
    seed: int, count: int = 5, words: int = 4, side: int = 64
) -> tuple[Regions, Classified]:
    """Soft discs at the places of ``seed`` // 100, a little moved, in an order of their own."""
    places = np.random.default_rng(seed // 100).uniform(8, side - 8, (count, 2))
    rng = np.random.default_rng(seed)
    places = places + rng.uniform(-1, 1, places.shape)
    rows, columns = np.mgrid[:side, :side]
    discs = [1 / (1 + np.exp(np.hypot(rows - y, columns - x) - 7)) for y, x in places]
    order = rng.permutation(count)
    masks = torch.tensor(np.array(discs)[order], dtype=torch.float32)
    probs = torch.tensor(rng.random((count, words)), dtype=torch.float32)
    queries = torch.arange(count)
    return Regions(torch.zeros(3, side, side), masks), Classified(probs, queries)


def test_smoothing_equals_a_plain_computation() -> None:
    smoother, alpha = Smoother(0.75), 0.75
    state: list[tuple[np.ndarray, np.ndarray]] = []
    matched = 0
    for seed in range(100, 106):
        regions, classified = random_frame(seed)
        smoothed = smoother(regions, classified)
        assert smoothed.queries is classified.queries
        masks = regions.masks.numpy() > 0.5
        probs = classified.class_probs.numpy().copy()
        if state:
            iou = np.array([[(a & b).sum() / (a | b).sum() for b in masks] for a, _ in state])
            # all ways to match them, the best in sum
            best = max(permutations(range(5)), key=lambda way: iou[range(5), way].sum())
            for before, now in enumerate(best):
                if iou[before, now] >= 0.5:
                    probs[now] = alpha * state[before][1] + (1 - alpha) * probs[now]
                    matched += 1
        np.testing.assert_allclose(smoothed.class_probs.numpy(), probs, rtol=1e-5)
        state = list(zip(masks, probs, strict=True))
    assert matched > 15


def test_a_cut_and_frames_without_proposals_start_anew() -> None:
    smoother = Smoother(0.9)
    smoother(*random_frame(100))
    regions, classified = random_frame(900)
    regions.masks = 1 - regions.masks.amax(dim=0, keepdim=True).expand(5, -1, -1)
    torch.testing.assert_close(smoother(regions, classified).class_probs, classified.class_probs)
    nothing = Classified(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert smoother(regions, nothing).class_probs.shape == (0, 4)
    regions, classified = random_frame(100)
    torch.testing.assert_close(smoother(regions, classified).class_probs, classified.class_probs)


def test_other_words_start_anew() -> None:
    smoother = Smoother(0.9)
    smoother.start(["cat", "dog", "grass", "sky"])
    smoother(*random_frame(100))
    smoother.start(["cat", "dog", "grass", "sand"])
    regions, classified = random_frame(101)
    torch.testing.assert_close(smoother(regions, classified).class_probs, classified.class_probs)
    fewer = replace(classified, class_probs=classified.class_probs[:, :2])
    torch.testing.assert_close(smoother(regions, fewer).class_probs, fewer.class_probs)


def test_frames_of_another_size_start_anew() -> None:
    smoother = Smoother(0.9)
    smoother(*random_frame(100))
    regions, classified = random_frame(101)
    regions.masks = regions.masks[:, :, :-8]
    torch.testing.assert_close(smoother(regions, classified).class_probs, classified.class_probs)
    again = smoother(regions, classified).class_probs  # the same frame again: no change either
    torch.testing.assert_close(again, classified.class_probs)


def test_without_the_past_nothing_changes() -> None:
    smoother = Smoother(0)
    for seed in (100, 101):
        regions, classified = random_frame(seed)
        torch.testing.assert_close(
            smoother(regions, classified).class_probs, classified.class_probs
        )
    for alpha in (1.0, -0.1):
        with pytest.raises(UserError, match="smooth"):
            Smoother(alpha)


def test_overlap_by_hand() -> None:
    first = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]])
    second = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]])
    torch.testing.assert_close(overlap(first, second), torch.tensor([[0.5, 0.25, 0], [0, 0, 0]]))


def test_flicker_by_hand() -> None:
    count = Flicker()
    count.add(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 255]]))
    # the truth changes at the second pixel; the first and the third stay, the third one flickers
    count.add(np.array([[0, 1, 2, 0]]), np.array([[0, 1, 1, 255]]))
    assert (count.compared, count.changed) == (2, 1)
    assert (count.pixels, count.right) == (6, 5)
    assert count.flicker == 0.5
    count.start_over()
    count.add(np.array([[5, 5, 5, 5]]), np.array([[0, 1, 1, 255]]))
    assert (count.compared, count.pixels, count.right) == (2, 9, 5)


def test_broken_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovseg.video.encoders.find_spec", lambda _: None)
    monkeypatch.setattr(cv2.VideoWriter, "isOpened", lambda _: False)
    with (
        pytest.raises(UserError, match=r"cannot write \.mp4 files"),
        VideoFile(tmp_path / "a.mp4", 10) as video,
    ):
        video.write(np.zeros((8, 8, 3), np.uint8))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'ovseg[video]'")
    with (
        pytest.raises(UserError, match="takes no video"),
        VideoFile(tmp_path / "none" / "a.mp4", 10) as video,
    ):
        video.write(np.zeros((8, 8, 3), np.uint8))


def write_black(video: VideoFile, count: int) -> None:
    for _ in range(count):
        video.write(np.zeros((8, 8, 3), np.uint8))


def test_frames_that_were_not_written_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2.VideoWriter, "write", lambda *_: None)
    with (
        pytest.raises(UserError, match="0 of 3 frames were written"),
        VideoFile(tmp_path / "a.avi", 10) as video,
    ):
        write_black(video, 3)


def test_frames_of_two_sizes(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "a.avi", 10) as video:
        video.write(np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(ValueError, match="in a video of"):
            video.write(np.zeros((8, 10, 3), np.uint8))
