"""The embedded model exported, on onnxruntime: PyTorch's labels, and what it says of mistakes."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import EXPORTED_WORDS, said
from PIL import Image

from ovseg import Predictor, UserError
from ovseg.cli import segment
from ovseg.runtime import Predictor as Exported
from ovseg.runtime import text
from ovseg.runtime.folder import MANIFEST, ExportFolder
from ovseg.utils.package_files import package_folder

BALL = package_folder("resources") / "samples" / "ball.jpg"
WORDS = ["soccer ball", "teapot", "grass", "night sky"]


@pytest.fixture(scope="module")
def runtime(exported: Path) -> Exported:
    return Exported(exported)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Three sizes, one of them narrow."""
    picture = Image.open(BALL).convert("RGB")
    return [np.asarray(picture.resize(size)) for size in ((96, 96), (150, 90), (64, 200))]


def share(first: Any, second: Any) -> float:
    return float((first.labels == second.labels).mean())


@pytest.mark.parametrize("words", [["teapot"], WORDS[:2], WORDS, "coco-stuff-171"], ids=str)
def test_labels_of_pytorch(
    runtime: Exported, embedded: Predictor, pictures: list[np.ndarray], words: Any
) -> None:
    for picture in pictures:
        found, expected = runtime(picture, words), embedded(picture, words)
        assert found.labels.shape == picture.shape[:2]
        assert found.labels.dtype == np.int32
        assert found.class_names == expected.class_names
        assert share(found, expected) >= 0.999


@pytest.mark.parametrize(
    "wanted",
    [
        {"reject": 0.4}, {"ensemble_weight": 0.0}, {"ensemble_weight": 1.0},
        {"mask_threshold": 0.9}, {"mask_threshold": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_options(
    runtime: Exported, embedded: Predictor, pictures: list[np.ndarray], wanted: dict[str, float]
) -> None:
    options = dict(class_probs=True, proposals=True, **wanted)
    found = runtime(pictures[0], WORDS, **options)
    expected = embedded(pictures[0], WORDS, **options)
    assert share(found, expected) >= 0.999
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    np.testing.assert_allclose(found.class_probs, expected.class_probs, atol=1e-3)
    for name in ("masks", "maskformer_probs", "clip_probs"):
        given, wished = (getattr(each.proposals, name) for each in (found, expected))
        np.testing.assert_allclose(given, wished, atol=1e-3)


@pytest.mark.parametrize("reject", [None, 0.5])
@pytest.mark.parametrize("things", [None, ["soccer ball", "teapot"]], ids=str)
def test_segments_and_instances(
    runtime: Exported,
    embedded: Predictor,
    pictures: list[np.ndarray],
    things: list[str] | None,
    reject: float | None,
) -> None:
    for picture in pictures:
        encoded, of_pytorch = runtime.encode(picture), embedded.encode(picture)
        found, expected = (
            each.panoptic(WORDS, things, object_mask_threshold=0.02, reject=reject)
            for each in (encoded, of_pytorch)
        )
        assert len(found.segments) > 1
        assert (found.ids == expected.ids).mean() >= 0.999
        assert [replace(segment, score=0) for segment in found.segments] == [
            replace(segment, score=0) for segment in expected.segments
        ]
        np.testing.assert_allclose(
            [segment.score for segment in found.segments],
            [segment.score for segment in expected.segments],
            atol=1e-4,
        )
        found, expected = (
            each.instances(WORDS, things, max_instances=7, reject=reject)
            for each in (encoded, of_pytorch)
        )
        assert found.labels.tolist() == expected.labels.tolist()
        assert (found.masks == expected.masks).mean() >= 0.999
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_mistakes_of_segments(runtime: Exported, pictures: list[np.ndarray]) -> None:
    encoded = runtime.encode(pictures[0])
    with pytest.raises(UserError, match="thing_classes: 'cat' is none of the class names"):
        encoded.panoptic(WORDS, ["cat"])
    with pytest.raises(UserError, match=r"overlap_threshold 1\.5"):
        encoded.panoptic(WORDS, overlap_threshold=1.5)
    with pytest.raises(UserError, match="max_instances 0 must be at least 1"):
        encoded.instances(WORDS, max_instances=0)
    # a threshold that no proposal reaches leaves nothing
    assert not encoded.panoptic(WORDS, object_mask_threshold=1.0).segments


def test_no_mask_and_one_mask_above_the_threshold(runtime: Exported, embedded: Predictor) -> None:
    # the network is not sure of anything in noise
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    encoded, expected = runtime.encode(picture), embedded.encode(picture)
    highest = np.sort(encoded.regions.masks.max(axis=(1, 2)))
    one = float((highest[-1] + highest[-2]) / 2)
    for threshold, valid in ((1.0, 0), (one, 1)):
        regions = runtime.encode_crops(encoded.regions, threshold)
        assert regions.valid is not None
        assert int(regions.valid.sum()) == valid
        for weight in (0.0, 0.65):
            options = dict(mask_threshold=threshold, ensemble_weight=weight)
            both = (each.segment(WORDS, **options) for each in (encoded, expected))
            assert share(*both) >= 0.999


def test_synonyms_and_several_pictures(
    runtime: Exported, embedded: Predictor, pictures: list[np.ndarray]
) -> None:
    words = {"animal": ["flamingo", "mouse"], "ground": ["grass", "sand"]}
    found, expected = runtime(pictures, words), embedded(pictures, words)
    assert [share(*both) >= 0.999 for both in zip(found, expected, strict=True)] == [True] * 3
    batched = list(runtime.stream(pictures, words, batch_size=3))
    of_torch = list(embedded.stream(pictures, words, batch_size=3))
    assert [share(*both) >= 0.999 for both in zip(batched, of_torch, strict=True)] == [True] * 3
    turned = runtime(pictures[0][:, :, ::-1], words, bgr=True)
    np.testing.assert_array_equal(turned.labels, found[0].labels)


def test_a_picture_of_one_pixel(runtime: Exported, embedded: Predictor) -> None:
    pixel = np.full((1, 1, 3), 200, np.uint8)
    assert runtime(pixel, WORDS).labels.tolist() == embedded(pixel, WORDS).labels.tolist()


def test_names_of_classes_that_are_none_of_their_words(runtime: Exported) -> None:
    known = replace(
        runtime.folder.settings,
        class_names=(("teapot", "cup"), ("grass",)),
        shown_names=("crockery", "ground"),
    )
    other = copy.copy(runtime)
    other.folder = replace(runtime.folder, settings=known)
    assert other.vocabulary().names == ("crockery", "ground")
    assert other.vocabulary().words == ("teapot", "cup", "grass")


def test_class_names_of_the_export(runtime: Exported, pictures: list[np.ndarray]) -> None:
    assert runtime(pictures[0]).class_names == list(EXPORTED_WORDS)
    assert runtime.vocabulary().names == EXPORTED_WORDS
    encoded = runtime.encode(pictures[0])
    np.testing.assert_array_equal(
        encoded.segment().labels, encoded.segment(list(EXPORTED_WORDS)).labels
    )
    assert encoded.panoptic().class_names == encoded.instances().class_names == list(EXPORTED_WORDS)


def test_exported_text_features(runtime: Exported, embedded: Predictor) -> None:
    expected = embedded.model.clip_adapter.text_features(["teapot", "peacock"]).detach().numpy()
    known, encoded = runtime.text(runtime.vocabulary(["teapot", "peacock"])).features[:2]
    np.testing.assert_allclose(known, expected[0], atol=1e-6)
    np.testing.assert_allclose(encoded, expected[1], atol=1e-5)


def test_providers_that_are_not_there(exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="providers: 'Foo' is none of onnxruntime's: "):
        Exported(exported, providers=["Foo"])
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return
    with pytest.raises(UserError, match="has none of CUDAExecutionProvider; choose from"):
        Exported(exported, providers=["CUDAExecutionProvider"])
    preferred = ["CUDAExecutionProvider", ("CPUExecutionProvider", {})]
    found = Exported(exported, providers=preferred)(np.zeros((8, 8, 3), np.uint8), WORDS)
    assert found.labels.shape == (8, 8)
    assert "CUDA" not in capfd.readouterr().err


def test_words_are_kept_as_long_as_there_is_room(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    folder = ExportFolder.read(exported)

    def encode(tokens: np.ndarray) -> np.ndarray:
        asked.append(len(tokens) // len(folder.settings.templates))
        return np.random.default_rng(int(tokens.sum())).random((len(tokens), 192), np.float32)

    monkeypatch.setattr(text, "MAX_WORDS", 3)
    monkeypatch.setattr(text, "_BATCH", 1000)
    encoder = text.TextEncoder(folder, encode)
    words = ["a", "b", "c", *EXPORTED_WORDS]
    first = encoder.features(words)
    np.testing.assert_array_equal(encoder.features(words), first)
    assert asked == [3]  # the export's own are known
    encoder.features(["b", "d"])  # "a" was asked for longest ago
    encoder.features(["b", "c", "d"])
    assert asked == [3, 1]
    encoder.features(["a"])
    assert asked == [3, 1, 1]
    assert encoder.features([f"word {number}" for number in range(5)]).shape == (5, 192)


def test_command(exported: Path, embedded: Predictor, tmp_path: Path) -> None:
    command = ["--runtime", str(exported), "--input", str(BALL), "--output", str(tmp_path)]
    segment.main([*command, "--class-names", *WORDS])
    with Image.open(tmp_path / "ball_labels.png") as labels:
        assert (np.asarray(labels) == embedded(BALL, WORDS).labels).mean() >= 0.999
    about = json.loads((tmp_path / "ball.json").read_text())["model"]
    assert about["runtime"] == str(exported)
    assert about["weights"] == "ovseg_tiny.pth"
    assert (tmp_path / "ball_overlay.jpg").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "tiny"], "--model and --runtime are both given"),
        (["--speed", "fast"], "--speed and --runtime are both given"),
        (["--opts", "MODEL.DEVICE", "cpu"], "--opts and --runtime are both given"),
        (
            ["--class-names", "dog", "a very long word " * 40],
            "longer than CLIP reads, 77 tokens",
        ),
        (["--class-names", "dog", "dog"], "is given twice"),
    ],
)
def test_wrong_commands(
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    command = ["--runtime", str(exported), "--input", str(BALL), "--output", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        segment.main([*command, *options])
    assert ended.value.code == 2
    (line,) = said(capsys)
    assert message in line


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))

    return edit


def changed(folder: Path) -> None:
    content = bytearray((folder / "text.onnx").read_bytes())
    content[1000] ^= 1
    (folder / "text.onnx").write_bytes(content)


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "regions.onnx").unlink(), "lacks regions.onnx; export it again"),
    (lambda folder: (folder / MANIFEST).unlink(), "has no manifest.json; give a folder"),
    (shutil.rmtree, "is not there; give a folder that ovseg export wrote"),
    (edited(version=99), "version 99 of the manifest, and this OVSeg reads version 1"),
    (edited(image={}), "is broken (KeyError: 'channels')"),
    (edited(files={"../x": {}}), "file '../x' lies elsewhere"),
    (changed, "is not the file that was exported: its content differs from the SHA-256"),
    (lambda folder: (folder / MANIFEST).write_text("{"), "cannot be read"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_broken_folders(
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    message: str,
) -> None:
    folder = tmp_path / "exported"
    shutil.copytree(exported, folder)
    damage(folder)
    with pytest.raises(SystemExit) as ended:
        segment.main(["--runtime", str(folder), "--class-names", "dog", "--input", str(BALL)])
    assert ended.value.code == 2
    (line,) = said(capsys)
    assert message in line


def test_words_that_need_a_text_graph(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    shutil.copytree(exported, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["files"]["text.onnx"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    runtime = Exported(folder)
    picture = np.zeros((64, 64, 3), np.uint8)
    assert runtime(picture).class_names == list(EXPORTED_WORDS)
    with pytest.raises(UserError, match="'peacock': this export knows the words of its manifest"):
        runtime(picture, ["teapot", "peacock"])


@pytest.mark.parametrize("name", ["ensemble_weight", "mask_threshold", "reject"])
def test_numbers_outside_of_their_range(runtime: Exported, name: str) -> None:
    encoded = runtime.encode(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(UserError, match=rf"{name} 1\.5 must be in 0\.\.1"):
        encoded.segment(WORDS, **{name: 1.5})
