"""``ovseg segment`` from the command line to the files, on a small model with random weights."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from processes import interrupt_call
from tiny_world import CONFIGS, write_model

from ovseg.cli import model_choice, segment, segment_run, windows
from ovseg.colours import palette
from ovseg.config import setup_cfg
from ovseg.errors import UserError
from ovseg.predictor import Predictor
from ovseg.results.files import ResultPaths

WORDS = ["Oculus", "Ukulele", "blue sky"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The part of a command line that names a small random model."""
    return ["--opts", *write_model(tmp_path_factory.mktemp("model"))]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.jpeg", "b.png", "c.png"):
        small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(small).resize((84, 60)).save(folder / name)
    return folder


def run(config: str, *args: object) -> int:
    """``ovseg segment ...`` in this process; the exit code."""
    try:
        segment.main(["--config-file", str(CONFIGS / config), *map(str, args)])
    except SystemExit as ended:
        return int(str(ended.code))
    return 0


EVALUATION, DEMO = "ovseg_swinB_vitL_bs32_120k.yaml", "ovseg_swinB_vitL_demo.yaml"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode")
def test_file_names_that_are_no_utf_8(
    photos: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Path(os.fsdecode(bytes(photos) + b"/caf\xe9.png"))
    (photos / "b.png").rename(odd)
    (photos / "a.jpeg").unlink()
    output = tmp_path / "out"
    arguments = ["--input", photos, "--output", output, "--class-names", *WORDS]
    arguments += ["--save", "overlay,coco,html,labelstudio,yolo", "--skip-existing"]
    assert run(DEMO, *arguments, *model) == 0
    document = json.loads((output / "caf\ufffd.json").read_text("utf-8"))
    assert document["file"] == str(odd)
    page = (output / "html" / "index.html").read_text("utf-8")
    assert "caf\ufffd" in page or "caf\\ufffd" in page
    images = json.loads((output / "coco.json").read_text("utf-8"))["images"]
    assert sorted(image["file_name"] for image in images) == ["c.png", odd.name]
    # and it is known again
    assert run(DEMO, *arguments, *model) == 0
    assert "2 of 2 images are there already" in capsys.readouterr().out


def test_an_option_given_twice_counts_twice(photos: Path, model: list[str], tmp_path: Path) -> None:
    words = ["--class-names", "cat", "--class-names", "dog", "grass"]
    files = ["--input", photos / "a.jpeg", "--input", photos / "b.png"]
    assert run(DEMO, *files, *words, "--output", tmp_path, *model) == 0
    for name in ("a", "b"):
        classes = json.loads((tmp_path / f"{name}.json").read_text())["classes"]
        assert [entry["name"] for entry in classes] == ["cat", "dog", "grass"]


def test_an_overlay_that_is_named_has_to_be_saved(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--class-names", "cat", "--input", photos / "b.png", "--output", "x.jpg"]
    assert run(DEMO, *arguments, "--save", "masks") == 2
    assert "--output 'x.jpg' names the overlay, which --save masks leaves out" in errors_of(capsys)


def test_a_changed_image_and_missing_segments_are_done_again(
    photos: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segments = ["MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "True"]
    arguments = ["--class-names", *WORDS, "--input", photos / "b.png", photos / "c.png"]
    arguments += ["--output", tmp_path, "--skip-existing", *model, *segments]
    assert run(EVALUATION, *arguments) == 0
    (tmp_path / "b_panoptic.png").unlink()
    assert run(EVALUATION, *arguments) == 0
    assert "1 of 2 images are there already" in capsys.readouterr().out
    assert (tmp_path / "b_panoptic.png").is_file()
    later = (tmp_path / "c.json").stat().st_mtime + 5
    os.utime(photos / "c.png", (later, later))
    assert run(EVALUATION, *arguments) == 0
    assert "1 of 2 images are there already" in capsys.readouterr().out


def test_commas_do_not_separate_classes(
    photos: Path, model: list[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    arguments = ["--input", photos / "b.png", "--output", tmp_path, *model]
    assert run(DEMO, "--class-names", "cat,dog", *arguments) == 0
    assert "class name 'cat,dog' is one class" in caplog.text


def test_a_data_set_has_no_folders_to_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(DEMO, "--dataset", "d.yaml", "--recursive") == 2
    message = "error: --recursive is for folders of --input; leave it out with --dataset\n"
    assert capsys.readouterr().err == message


def test_the_limit_of_megapixels_is_a_key(
    model: list[str],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OVSEG_MAX_MEGAPIXELS", "179")  # put back at the end
    given = ["--class-names", *WORDS, "--input", photos / "b.png", "--output", tmp_path / "out"]
    assert run(EVALUATION, *given, *model, "INPUT.MAX_MEGAPIXELS", "0.005") == 2
    said = capsys.readouterr().err
    assert "has 0.0 megapixels (84 x 60), more than the limit of 0.005; set the config key" in said
    assert run(EVALUATION, *given, *model, "INPUT.MAX_MEGAPIXELS", "0.006") == 0


@pytest.mark.parametrize("config", [EVALUATION, DEMO])
def test_published_command(
    config: str,
    model: list[str],
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "pred"
    picture = photos / "a.jpeg"
    assert run(config, "--class-names", *WORDS, "--input", picture, "--output", output, *model) == 0
    assert f"results in {output}" in capsys.readouterr().out
    assert {path.name for path in output.iterdir()} == {"a_overlay.jpg", "a_labels.png", "a.json"}
    summary = json.loads((output / "a.json").read_text("utf-8"))
    with Image.open(output / "a_labels.png") as file:
        labels = np.asarray(file)
    assert labels.shape == (60, 84)
    assert [entry["name"] for entry in summary["classes"]] == WORDS
    for entry in summary["classes"]:
        assert entry["pixels"] == (labels == entry["label"]).sum()
    assert summary["no_class"]["pixels"] == (labels == 255).sum()
    assert sum(entry["pixels"] for entry in summary["classes"]) > 0
    assert summary["file"] == str(picture)
    assert summary["model"]["config"] == config
    expected = "OVSegDEMO" if config == DEMO else "OVSeg"
    assert summary["model"]["architecture"] == expected
    with Image.open(output / "a_overlay.jpg") as overlay:
        assert overlay.width > 640


def test_the_demo_writes_what_the_predictor_says(
    model: list[str], photos: Path, tmp_path: Path
) -> None:
    args = ["--class-names", *WORDS, "--input", photos / "b.png", "--output", tmp_path / "out.png"]
    assert run(EVALUATION, *args, *model) == 0
    with Image.open(photos / "b.png") as file:
        image = np.asarray(file)
    predictor = Predictor(setup_cfg(CONFIGS / EVALUATION, model[1:]))
    prediction = predictor(image, WORDS)
    with Image.open(tmp_path / "out_labels.png") as file:
        labels = np.asarray(file).astype(int)
    np.testing.assert_array_equal(np.where(labels == 255, -1, labels), prediction.labels)
    assert (tmp_path / "out.png").exists()
    assert (tmp_path / "out.json").exists()


def test_the_embedded_model_looks_for_all_it_knows(
    model: list[str], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_choice, "EMBEDDED_CONFIG", CONFIGS / EVALUATION)
    monkeypatch.chdir(tmp_path)  # found from anywhere
    segment.main(["--input", str(photos / "b.png"), "--output", "pred", *model])
    summary = json.loads((tmp_path / "pred" / "b.json").read_text("utf-8"))
    names = [entry["name"] for entry in summary["classes"]]
    assert len(names) == 186
    assert {"dog", "blue sky", "grass"} <= set(names)


def test_one_word_has_company_that_is_not_shown(
    model: list[str], photos: Path, tmp_path: Path
) -> None:
    args = ["--class-names", "Ukulele", "--input", photos / "b.png", "--output", tmp_path]
    assert run(EVALUATION, *args, *model) == 0
    summary = json.loads((tmp_path / "b.json").read_text("utf-8"))
    (entry,) = summary["classes"]
    assert entry["name"] == "Ukulele"
    assert entry["pixels"] + summary["no_class"]["pixels"] == 60 * 84


def test_a_vocabulary_is_class_names_in_a_file(
    model: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "words.txt"
    file.write_text("Oculus | headset\nUkulele\nblue sky\n", encoding="utf-8")
    args = ["--input", photos / "b.png", "--output"]
    words = ["Oculus|headset", *WORDS[1:]]
    assert run(EVALUATION, "--vocabulary", file, *args, tmp_path / "file", *model) == 0
    assert run(EVALUATION, "--class-names", *words, *args, tmp_path / "words", *model) == 0
    assert run(EVALUATION, "--class-names", *WORDS, *args, tmp_path / "plain", *model) == 0
    described = [
        json.loads((tmp_path / name / "b.json").read_text("utf-8"))["classes"]
        for name in ("file", "words", "plain")
    ]
    assert [entry["name"] for entry in described[0]] == WORDS
    assert described[0] == described[1] != described[2]
    assert run(EVALUATION, "--vocabulary", "pascal-voc-20", *args, tmp_path / "voc", *model) == 0
    names = json.loads((tmp_path / "voc" / "b.json").read_text("utf-8"))["classes"]
    assert len(names) == 20
    capsys.readouterr()
    assert run(EVALUATION, "--vocabulary", "pascal-voc", *args, tmp_path / "no") == 2
    assert "'pascal-voc'" in capsys.readouterr().err
    both = ["--vocabulary", file, "--class-names", "cat"]
    assert run(EVALUATION, *both, *args, tmp_path / "no") == 2
    assert "not allowed with" in capsys.readouterr().err


def test_reject_leaves_pixels_without_a_class(
    model: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--class-names", *WORDS, "--input", photos / "b.png", "--output"]
    summaries = []
    for name, options in (("off", []), ("zero", ["0"]), ("half", ["0.5"]), ("all", ["1"])):
        given = ["--reject", *options] if options else []
        assert run(EVALUATION, *args, tmp_path / name, *given, *model) == 0
        summaries.append(json.loads((tmp_path / name / "b.json").read_text("utf-8")))
    off, zero, half, everything = (summary["no_class"]["share"] for summary in summaries)
    assert off == zero < half <= everything == 1
    assert [summary["model"]["reject"] for summary in summaries] == [0, 0, 0.5, 1]
    labels = [(tmp_path / name / "b_labels.png").read_bytes() for name in ("off", "zero")]
    assert labels[0] == labels[1]
    capsys.readouterr()
    for wrong in ("2", "nan", "much"):
        assert run(EVALUATION, *args, tmp_path / "no", "--reject", wrong, *model) == 2
        error = errors_of(capsys)
        assert "--reject" in error
        assert wrong in error


def test_the_good_ones_are_done_first(
    model: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "aa_broken.png").write_text("no image")
    inputs = [photos, photos / "missing.jpg", f"{photos}/*.jpeg"]
    args = ["--class-names", *WORDS, "--input", *inputs, "--output", tmp_path / "pred"]
    assert run(EVALUATION, *args, *model) == 1
    names = {path.name for path in (tmp_path / "pred").glob("*.json")}
    assert names == {"a.json", "b.json", "c.json"}
    out, err = capsys.readouterr()
    assert out.startswith("3 images, ")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert any("missing.jpg" in line for line in errors)
    assert any("aa_broken.png" in line for line in errors)


def errors_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of the error; what comes before it is a progress bar at most."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no class names"),
        (["cat", ""], "empty"),
        (["cat", "dog", "CAT"], "'CAT' is given twice"),
    ],
)
def test_bad_words(
    words: list[str],
    message: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ["--input", photos, "--output", tmp_path / "pred", "--class-names", *words]
    assert run(EVALUATION, *args) == 2
    assert message in errors_of(capsys)
    assert not (tmp_path / "pred").exists()


def test_bad_single_inputs(
    model: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_text("no image")
    for name in ("missing.png", "broken.png"):
        args = ["--class-names", "cat", "--input", photos / name, "--output", tmp_path / "pred"]
        assert run(EVALUATION, *args, *model) == 2
        assert name in errors_of(capsys)
    assert run(EVALUATION, "--class-names", "cat", "--output", tmp_path) == 2
    assert "no input" in errors_of(capsys)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.WEIGHT", "x"], "unknown config key MODEL.WEIGHT; did you mean MODEL.WEIGHTS"),
        (["MODEL.WEIGHTS", "nowhere.pth"], "nowhere.pth"),
        (["MODEL.WEIGHTS", ""], "MODEL.WEIGHTS is empty"),
        (["MODEL.SWIN.EMBED_DIM", "32"], "does not fit this config"),
        (["MODEL.DEVICE", "abacus"], "abacus"),
    ],
)
def test_bad_config(
    opts: list[str],
    message: str,
    model: list[str],
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ["--class-names", "cat", "--input", photos / "b.png", "--output", tmp_path / "pred"]
    assert run(EVALUATION, *args, *model, *opts) == 2
    assert message in errors_of(capsys)


def test_usage_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(EVALUATION, "--colour", "red") == 2
    assert "--colour red; see --help" in errors_of(capsys)
    assert run("none.yaml", "--class-names", "cat", "--input", __file__, "--output", "p.png") == 2
    assert "none.yaml" in errors_of(capsys)


def test_without_output_a_window_is_needed(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(windows.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert run(EVALUATION, "--class-names", "cat", "--input", photos / "b.png") == 2
    assert "--output" in errors_of(capsys)


def test_window_shows_every_picture_until_escape(
    model: list[str], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []
    keys = iter([ord(" "), 27])
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda _, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "waitKey", lambda _: next(keys))
    assert run(EVALUATION, "--class-names", *WORDS, "--input", photos, *model) == 0
    assert len(shown) == 2
    assert shown[0].shape[1] > 640


def test_opencv_without_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise cv2.error("not implemented")

    monkeypatch.setattr(cv2, "namedWindow", refuse)
    with pytest.raises(UserError, match="cannot open windows; give --output"):
        windows.show(np.zeros((4, 4, 3), np.uint8))


def test_formats_and_batches(
    model: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "bb_broken.png").write_text("no image")
    common = ["--class-names", *WORDS, "--input", photos, "--save", "scores,coco,html"]
    for size in (1, 2):
        args = [*common, "--batch-size", size, "--output", tmp_path / str(size)]
        assert run(EVALUATION, *args, *model) == 1
        assert "bb_broken.png" in errors_of(capsys)
    for name in "abc":  # all of one size, so padding changes nothing
        one, two = (np.load(tmp_path / size / "scores" / f"{name}.npz") for size in "12")
        np.testing.assert_allclose(one["scores"], two["scores"], rtol=1e-2)
    assert {path.name for path in (tmp_path / "2").iterdir()} == {
        "a.json", "b.json", "c.json", "scores", "coco", "coco.json", "html",
    }  # fmt: skip
    images = json.loads((tmp_path / "2" / "coco.json").read_text("utf-8"))["images"]
    assert [image["file_name"] for image in images] == ["a.jpeg", "b.png", "c.png"]


def test_an_interrupted_run_goes_on(
    model: list[str],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ["--class-names", *WORDS, "--input", photos, "--output", tmp_path / "pred"]
    args += ["--save", "labels,coco", "--skip-existing"]
    seen = interrupt_call(monkeypatch, Predictor, "encode_batch", 3)
    assert run(EVALUATION, *args, *model) == 130

    def pictures() -> list[str]:
        images = json.loads((tmp_path / "pred" / "coco.json").read_text("utf-8"))["images"]
        return [image["file_name"] for image in images]

    assert pictures() == ["a.jpeg", "b.png"]
    before = (tmp_path / "pred" / "a.json").stat().st_mtime_ns
    capsys.readouterr()
    assert run(EVALUATION, *args, *model) == 0
    out = capsys.readouterr().out
    assert "2 of 3 images are there already" in out
    assert "1 image, " in out
    assert len(seen) == 4
    assert pictures() == ["a.jpeg", "b.png", "c.png"]
    assert (tmp_path / "pred" / "a.json").stat().st_mtime_ns == before
    # nothing is left to do: no model is loaded
    monkeypatch.setattr(Predictor, "__init__", None)
    assert run(EVALUATION, *args, *model) == 0
    assert "3 of 3" in capsys.readouterr().out
    # with other settings all images are done again
    monkeypatch.undo()
    for other in (
        ("--palette", "colorblind", *model), (*model, "MODEL.CLIP_ADAPTER.MASK_THR", "0.3"),
    ):  # fmt: skip
        again = interrupt_call(monkeypatch, Predictor, "encode_batch", 1)
        assert run(EVALUATION, *args, *other) == 130
        monkeypatch.undo()
        assert len(again) == 1


def test_the_palette_of_the_colour_blind(model: list[str], photos: Path, tmp_path: Path) -> None:
    args = ["--class-names", *WORDS, "--input", photos / "b.png", "--output", tmp_path]
    assert run(EVALUATION, *args, "--palette", "colorblind", *model) == 0
    summary = json.loads((tmp_path / "b.json").read_text("utf-8"))
    first, *_ = palette(3, "colorblind").tolist()
    assert summary["classes"][0]["color"] == "#{:02x}{:02x}{:02x}".format(*first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--save", "overlay,gif"], "--save 'gif' is not known; choose from overlay"),
        (["--save", ","], "names nothing"),
        (["--batch-size", "0"], "--batch-size 0 must be at least 1"),
        (["--palette", "rainbow"], "rainbow"),
    ],
)
def test_bad_options(
    options: list[str],
    message: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ["--class-names", "cat", "--input", photos, "--output", tmp_path / "pred", *options]
    assert run(EVALUATION, *args) == 2
    assert message in errors_of(capsys)
    assert not (tmp_path / "pred").exists()


def test_an_image_that_memory_does_not_hold_is_left_out(
    model: list[str],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    encode = Predictor.encode_batch

    def large(self: Predictor, images: list[np.ndarray], *rest: object) -> object:
        if any((image == photo_b).all() for image in images):
            raise MemoryError
        return encode(self, images, *rest)

    photo_b = np.asarray(Image.open(photos / "b.png"))
    monkeypatch.setattr(Predictor, "encode_batch", large)
    args = ["--class-names", *WORDS, "--input", photos, "--batch-size", 3]
    assert run(EVALUATION, *args, "--output", tmp_path / "pred", *model) == 1
    assert errors_of(capsys) == f"error: {str(photos / 'b.png')!r}: out of memory"
    assert {path.name for path in (tmp_path / "pred").glob("*.json")} == {"a.json", "c.json"}


def test_a_full_disk_ends_the_run(
    model: list[str],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried: list[Path] = []

    def full(prediction: object, paths: ResultPaths, *_: object) -> None:
        tried.append(paths.summary)
        raise UserError("no room") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segment_run, "save_result", full)
    args = ["--class-names", *WORDS, "--input", photos, "--output", tmp_path / "pred"]
    assert run(EVALUATION, *args, *model) == 2
    assert errors_of(capsys) == "error: no room"
    assert len(tried) == 1


def test_saving_needs_a_folder_and_what_formats_need(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--class-names", "cat", "--input", photos]
    assert run(EVALUATION, *args, "--save", "coco") == 2
    assert "--save coco needs --output, a folder" in errors_of(capsys)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "cv2" else find(name)
    )
    assert run(EVALUATION, *args, "--save", "labels,yolo", "--output", "out") == 2
    message = "--save yolo needs cv2; install it: pip install opencv-python-headless"
    assert message in errors_of(capsys)
    monkeypatch.setenv("DISPLAY", ":0")
    assert run(EVALUATION, *args) == 2
    assert "windows need OpenCV" in errors_of(capsys)


def test_skipping_needs_a_folder(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(EVALUATION, "--class-names", "cat", "--input", photos, "--skip-existing") == 2
    assert "--skip-existing needs --output" in errors_of(capsys)


def test_two_processes_write_what_one_does(
    model: list[str],
    photos: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    one_thread: None,
) -> None:
    (photos / "bb_broken.png").write_text("no picture")
    common = ["--class-names", *WORDS, "--input", photos, "--save", "labels,masks,scores,coco"]
    for count in (1, 2):
        args = [*common, "--num-processes", count, "--output", tmp_path / str(count)]
        assert run(EVALUATION, *args, *model) == 1
        said = capfd.readouterr()
        errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "bb_broken.png" in errors[0]
        assert "3 images, " in said.out
    one, two = (
        {path.relative_to(tmp_path / count): path for path in (tmp_path / count).rglob("*.*")}
        for count in "12"
    )
    assert one.keys() == two.keys()
    assert len(one) >= 10
    for name in one:
        if name.suffix == ".json" and name.stem in "abc":
            first, second = (json.loads(files[name].read_text("utf-8")) for files in (one, two))
            assert {**first, "seconds": 0} == {**second, "seconds": 0}
        elif name.suffix == ".npz":
            first, second = (np.load(files[name])["scores"] for files in (one, two))
            np.testing.assert_array_equal(first, second)
        else:
            assert one[name].read_bytes() == two[name].read_bytes()


def test_several_processes_need_a_folder(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--class-names", "cat", "--input", photos, "--num-processes", "2"]
    assert run(EVALUATION, *args) == 2
    assert "several processes show nothing: give --output" in errors_of(capsys)
