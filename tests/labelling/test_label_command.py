"""`ovseg label` in one process: what its rows say, and how a run goes on."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import said
from labelling_world import FAST, WORDS, arguments, manifest_of, rows_of, write_pictures
from PIL import Image
from pycocotools import mask as coco_mask
from tiny_world import CONFIGS

from ovseg import Predictor
from ovseg.cli import label
from ovseg.data.label_shards import told_rows
from ovseg.labelling import work
from ovseg.labelling.plan import Shard
from ovseg.labelling.progress import LabelProgress


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained("tiny", device="cpu", opts=["INPUT.MIN_SIZE_TEST", 32])


@pytest.fixture(autouse=True)
def _one_model(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is built once for all tests."""
    monkeypatch.setattr(work, "Predictor", lambda cfg: predictor)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_pictures(folder, 5)
    (folder / "picture_002b.jpg").write_bytes(b"no picture")
    return folder


def run(*args: str) -> int:
    """The exit code."""
    try:
        label.main(args)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode")
@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_file_names_that_are_no_utf_8(kind: str, photos: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png"))
    odd.write_bytes((photos / "picture_000.png").read_bytes())
    assert run(*arguments(tmp_path / "out", tmp_path, options=("--format", kind))) == 0
    (row,) = rows_of(tmp_path / "out")
    assert row["source"] == str(tmp_path / "caf\ufffd.png")
    assert row["error"] is None


def png(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
def test_rows_say_what_the_predictor_says(
    format: str, photos: Path, predictor: Predictor, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = ("--format", format, "--shard-size", "4", "--score-maps")
    assert run(*arguments(tmp_path, photos, options=options)) == 1
    assert said(capsys) == ["error: 1 of 6 images could not be labelled; their rows say why"]
    rows = rows_of(tmp_path)
    assert [row["key"] for row in rows] == [
        "000000-000000", "000000-000001", "000000-000002", "000000-000003", "000001-000000",
        "000001-000001",
    ]  # fmt: skip
    assert [Path(row["source"]) for row in rows] == sorted(photos.iterdir())
    broken = rows.pop(3)
    assert "picture_002b.jpg' cannot be read as an image" in broken["error"]
    assert broken["labels"] is None
    assert broken["segments"] == []
    for row in rows:
        expected = predictor(row["source"], WORDS)
        assert row["error"] is None
        assert (row["height"], row["width"]) == (40, 56)
        np.testing.assert_array_equal(png(row["labels"]), expected.labels)
        np.testing.assert_array_equal(png(row["scores"]), np.minimum(expected.scores, 1) * 255 // 1)
        assert [part["label"] for part in row["segments"]] == sorted({*expected.labels.flat})
        for part in row["segments"]:
            mask = expected.labels == part["label"]
            code = {"size": [40, 56], "counts": part["rle"]}
            np.testing.assert_array_equal(coco_mask.decode(code), mask)
            assert part["area"] == mask.sum()
            assert part["name"] == WORDS[part["label"]]
            assert part["score"] == pytest.approx(expected.scores[mask].mean(), abs=1e-5)
        assert row["score"] == pytest.approx(expected.scores.mean(), abs=1e-5)


def test_webdataset_reads_the_shards(photos: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    run(*arguments(tmp_path, photos / "picture_000.png", options=("--format", "webdataset")))
    (sample,) = webdataset.WebDataset(
        str(tmp_path / "labels-000000.tar"), shardshuffle=False
    ).decode("pil")
    assert sample["__key__"] == "000000-000000"
    assert sample["labels.png"].size == (56, 40)
    assert sample["json"]["source"].endswith("picture_000.png")


def test_what_is_done_is_not_done_again(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--shard-size", "2")
    assert run(*arguments(tmp_path / "whole", photos, options=options)) == 1
    # interrupted in the third shard
    output = tmp_path / "parts"
    seen: list[int] = []
    rows = work.Labeller._rows

    def interrupted(self: work.Labeller, shard: Shard, report: Callable[[int], None]) -> Iterator:
        seen.append(shard.number)
        for row in rows(self, shard, report):
            if seen == [0, 1, 2]:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(work.Labeller, "_rows", interrupted)
    assert run(*arguments(output, photos, options=options)) == 130
    assert sorted(path.name for path in output.glob("*.parquet")) == [
        "labels-000000.parquet", "labels-000001.parquet",
    ]  # fmt: skip
    assert not (output / "manifest.json").exists()
    capsys.readouterr()
    # pictures that come later have no place in a plan that was begun
    (output / "labels-000001.parquet").unlink()
    assert run(*arguments(output, photos, options=options)) == 1
    assert seen == [0, 1, 2, 1, 2]
    assert capsys.readouterr().err.startswith("1 of 3 shards there already\n")
    assert rows_of(output) == rows_of(tmp_path / "whole")
    assert manifest_of(output) == manifest_of(tmp_path / "whole")
    assert run(*arguments(output, photos, options=options)) == 1
    assert seen == [0, 1, 2, 1, 2]
    capsys.readouterr()
    assert run(*arguments(output, photos, options=("--shard-size", "3"))) == 2
    (line,) = said(capsys)
    assert "was begun with other settings (--shard-size 2, now 3): give another folder" in line


def test_the_model_is_that_of_the_command_line(
    photos: Path, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []

    def build(cfg: Any) -> Predictor:
        built.append(cfg)
        return predictor

    monkeypatch.setattr(work, "Predictor", build)
    command = arguments(tmp_path / "out", photos / "picture_000.png", options=("--speed", "fast"))
    assert run(*command, "MODEL.CLIP_ADAPTER.MASK_THR", "0.3") == 0
    (cfg,) = built
    assert (cfg.MODEL.CLIP_ADAPTER.CROPS, cfg.MODEL.CLIP_ADAPTER.MASK_THR) == ("visible", 0.3)
    assert cfg.INPUT.MIN_SIZE_TEST == 32
    config = tmp_path / "own.yaml"
    config.write_text(f"_BASE_: {CONFIGS / 'ovseg_tiny_demo.yaml'}\nTEST: {{REJECT: 0.2}}\n")
    command = arguments(tmp_path / "two", photos / "picture_000.png")
    assert run("--config-file", str(config), *command) == 0
    assert built[1].TEST.REJECT == 0.2


def test_names_with_odd_line_ends_are_read_again(photos: Path, tmp_path: Path) -> None:
    odd = tmp_path / "photos" / "a\u2028b\u0085c.png"
    odd.parent.mkdir()
    odd.write_bytes((photos / "picture_000.png").read_bytes())
    assert run(*arguments(tmp_path / "out", odd)) == 0
    before = rows_of(tmp_path / "out")
    assert [row["source"] for row in before] == [str(odd)]
    (tmp_path / "out" / "labels-000000.parquet").unlink()
    assert run(*arguments(tmp_path / "out", odd)) == 0
    assert rows_of(tmp_path / "out") == before


def test_another_min_score_does_not_replace_an_edited_description(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (picture,) = write_pictures(tmp_path / "photos", 1)
    output = tmp_path / "out"
    file = output / "dataset.yaml"
    assert run(*arguments(output, picture)) == 0
    assert yaml.safe_load(file.read_text())["min_score"] == 0
    edited = file.read_text().replace("name: out", "name: mine")
    file.write_text(edited)
    capsys.readouterr()
    assert run(*arguments(output, picture, options=("--min-score", "0.9"))) == 2
    assert said(capsys) == [
        f"error: --min-score 0.9: dataset.yaml in --output {str(output)!r} is there already, with "
        "min_score 0.0; correct it there, or leave out --min-score"
    ]
    assert file.read_text() == edited
    for options in (("--min-score", "0"), ()):
        assert run(*arguments(output, picture, options=options)) == 0
    file.write_text(edited.replace("0.0", "0.7"))
    assert run(*arguments(output, picture)) == 0
    assert yaml.safe_load(file.read_text())["min_score"] == 0.7
    file.unlink()
    assert run(*arguments(output, picture, options=("--min-score", "0.9"))) == 0
    assert yaml.safe_load(file.read_text())["min_score"] == 0.9


@pytest.mark.usefixtures("forget_data_sets")
def test_a_data_set_of_ones_own_is_labelled_by_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_pictures(tmp_path / "photos", 3)
    (tmp_path / "maps").mkdir()
    Image.new("L", (56, 40)).save(tmp_path / "maps" / pictures[0].name)  # of the first alone
    file = tmp_path / "my.yaml"
    file.write_text("name: mine\nimages: photos\nlabels: maps\nclasses: [grass, [water, sea]]\n")
    monkeypatch.chdir(tmp_path)
    assert run("--dataset", "my.yaml", "--output", "out", *FAST) == 0
    rows = rows_of(tmp_path / "out")
    assert [row["source"] for row in rows] == [str(path) for path in pictures]
    assert manifest_of(tmp_path / "out")["classes"] == [["grass"], ["water", "sea"]]
    # what was labelled is a data set, too
    assert run("--dataset", "out/dataset.yaml", "--output", "again", *FAST) == 0
    labels = [[row["labels"] for row in rows_of(tmp_path / name)] for name in ("out", "again")]
    assert labels[0] == labels[1]
    capsys.readouterr()
    assert run("--dataset", "gone.yaml", "--output", "out2", *FAST) == 2
    assert "data set file 'gone.yaml' cannot be read" in said(capsys)[0]


def test_the_same_words_of_another_folder_are_another_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("one", "two"):
        write_pictures(tmp_path / folder / "photos", 1)
    monkeypatch.chdir(tmp_path / "one")
    assert run(*arguments(tmp_path / "out", "photos")) == 0
    assert rows_of(tmp_path / "out")[0]["source"] == f"{tmp_path}/one/photos/picture_000.png"
    monkeypatch.chdir(tmp_path / "two")
    assert run(*arguments(tmp_path / "out", "../one/photos/")) == 0
    capsys.readouterr()
    assert run(*arguments(tmp_path / "out", "photos")) == 2
    assert f"was begun with other settings (--input ['{tmp_path}" in said(capsys)[0]


def test_pictures_are_copied_as_they_are(photos: Path, tmp_path: Path) -> None:
    run(*arguments(tmp_path, photos, options=("--copy-images",)))
    rows = [row for row in rows_of(tmp_path) if row["error"] is None]
    assert len(rows) == 5
    for row in rows:
        assert (tmp_path / row["image"]).read_bytes() == Path(row["source"]).read_bytes()


def test_a_batch_gives_what_single_pictures_give(photos: Path, tmp_path: Path) -> None:
    """All of one size, so that nothing is padded."""
    run(*arguments(tmp_path / "one", photos))
    run(*arguments(tmp_path / "four", photos, options=("--batch-size", "4")))
    one, four = rows_of(tmp_path / "one"), rows_of(tmp_path / "four")
    assert [row["error"] for row in one] == [row["error"] for row in four]
    for first, second in zip(one, four, strict=True):
        if first["error"] is None:
            same = png(first["labels"]) == png(second["labels"])
            assert same.mean() > 0.99
            assert first["score"] == pytest.approx(second["score"], abs=1e-3)


def test_a_picture_that_does_not_fit_the_memory_is_a_row(
    photos: Path, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = type(predictor).encode_batch
    large = np.asarray(Image.open(photos / "picture_001.png"))

    def short(self: Predictor, images: list[np.ndarray], proposals: None = None) -> list:
        if any(np.array_equal(image, large) for image in images):
            raise torch.OutOfMemoryError("out of memory")
        return encode(self, images, proposals)

    monkeypatch.setattr(type(predictor), "encode_batch", short)
    run(*arguments(tmp_path, photos, options=("--batch-size", "3")))
    errors = [row["error"] for row in rows_of(tmp_path)]
    assert errors[1] == "an image of 56 x 40 pixels cannot be segmented (out of memory)"
    assert [error is None for error in errors] == [True, False, True, False, True, True]


def test_results_go_to_other_file_systems(photos: Path, tmp_path: Path) -> None:
    place = f"file://{tmp_path / 'there'}"
    assert run(*arguments(place, photos, options=("--shard-size", "4"))) == 1
    assert run(*arguments(place, photos, options=("--shard-size", "4"))) == 1
    run(*arguments(tmp_path / "here", photos, options=("--shard-size", "4")))
    assert rows_of(tmp_path / "there") == rows_of(tmp_path / "here")
    names = {path.name for path in (tmp_path / "there").iterdir()}
    assert names == {path.name for path in (tmp_path / "here").iterdir()}


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    for name in ("labels-000000.parquet", "labels-000000.tar"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(Exception, match=rf"{name} is no shard of labels .*; label it again"):
            list(told_rows(tmp_path / name))


def test_progress_tells_the_time_left() -> None:
    shards = [Shard(number, "tar", (f"{number}.tar",)) for number in range(4)]
    assert LabelProgress(shards, {}, io.StringIO()).total() is None
    progress = LabelProgress(shards, {0: 100}, io.StringIO())
    progress.seen(80)
    progress.finished(shards[1], 80)
    assert progress.total() == 360  # two more like these
    assert progress.line(40.0) == "180 of 360 images, 2.0 a second, 01:30 left"


def test_without_ray_the_command_works_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    picture = photos / "picture_000.png"
    assert run(*arguments(tmp_path / "two", picture, options=("--workers", "2"))) == 0
    assert "Ray is not installed (pip install 'ovseg[ray]')" in capsys.readouterr().out
    run(*arguments(tmp_path / "one", picture))
    assert manifest_of(tmp_path / "two") == manifest_of(tmp_path / "one")


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    for options, message in (
        (("--dataset", "x", "--input", "y"), "--dataset 'x' stands in place of --input, --class-"),
        (("--dataset", "stickerscenes_mor"), "'stickerscenes_mor' is not registered; did you mean"),
        (("--input", "y", "--min-score", "2"), "--min-score 2.0 must be in 0..1"),
        (("--input", "y", "--config-file", ""), "argument --config-file: is empty; give a file"),
        (
            ("--input", "y", "--workers", "0", "--cpus-per-worker", "1"),
            "--workers 0 is this process",
        ),
        (("--dataset", "x", "--recursive"), "--recursive and --image-column are for --input"),
        ((), "no input; give images"),
    ):
        assert run(*options, "--output", str(output)) == 2
        assert message in said(capsys)[0]
        assert not output.exists()
    for key, value in (
        ("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "true"), ("TEST.SAVE_PROPOSALS", str(tmp_path)),
    ):  # fmt: skip
        assert run(*arguments(output, "y"), key, value) == 2
        assert (
            f"{key} {value.title() if value == 'true' else value} has no effect in ovseg label"
            in (said(capsys)[0])
        )
