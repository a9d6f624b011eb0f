"""Preparation of raw archives: what is written, restarts, and what broken files do."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import archives
import cv2
import numpy as np
import pytest
import scipy.io
from archives import run_script
from conftest import ROOT
from PIL import Image

from ovseg.data.images import read_labels
from ovseg.data.preparation.files import BrokenFileError, check_image, read_label_mat
from ovseg.data.preparation.labels import (
    ade20k_object_ids,
    label_table,
    relabel,
    short_side_size,
    unknown_label,
)
from ovseg.data.preparation.runner import Job, run_jobs
from ovseg.errors import UserError
from ovseg.utils.io import atomic_path

VOC = Path("VOCdevkit/VOC2012")
FULL = Path("ADE20K_2021_17_01")
STREET = FULL / "images/ADE/validation/urban/street"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    archives.write_voc(tmp_path)
    return tmp_path


def prepare(name: str, root: Path, *options: str) -> int:
    return run_script(name, "--root", str(root), "--num-workers", "2", *options)


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The error lines so far."""
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    return [line for line in lines if line.startswith("error: ")]


def voc_maps(root: Path, split: str = "val") -> dict[str, int]:
    """Prepared label maps and when they were written."""
    folder = root / VOC / "annotations_detectron2" / split
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


# --- arrays


@pytest.mark.parametrize(("ignore_label", "dtype"), [(255, np.uint8), (65535, np.uint16)])
@pytest.mark.parametrize("raw_type", [np.uint8, np.uint16])
def test_relabel_four_by_two(ignore_label: int, dtype: type, raw_type: type) -> None:
    table = label_table(
        {5: 0, 9: 1, 0: ignore_label}, 256, ignore_label, unknown_label(ignore_label)
    )
    raw = np.array([[5, 9, 0, 0], [9, 9, 5, 0]], raw_type)
    labels = relabel(raw, table, ignore_label)
    none = ignore_label
    assert labels.tolist() == [[0, 1, none, none], [1, 1, 0, none]]
    assert labels.dtype == dtype
    raw[1, 2] = 6
    with pytest.raises(ValueError, match="value 6"):
        relabel(raw, table, ignore_label)
    if raw_type is np.uint16:
        raw[1, 2] = 300
        with pytest.raises(ValueError, match="value 300"):
            relabel(raw, table, ignore_label)


def test_object_ids_ignore_the_units_of_red_and_all_of_blue() -> None:
    pixels = [[0, 0, 0], [9, 255, 7], [10, 0, 1], [119, 162, 3], [255, 255, 255]]
    # 119 // 10 * 256 + 162 = 2978, the wall
    assert ade20k_object_ids(np.array([pixels], np.uint8)).tolist() == [[0, 255, 256, 2978, 6655]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 2048), (512, 1024)),
        ((900, 600), (768, 512)),
        ((513, 513), (512, 512)),
        ((683, 1000), (512, 750)),  # 749.6
        ((512, 3000), (512, 3000)),
        ((3000, 512), (3000, 512)),
    ],
)
def test_short_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert short_side_size(*size, 512) == expected


# --- files


def test_formats_and_sizes_of_ade20k_full(tmp_path: Path) -> None:
    archives.write_ade20k_full(tmp_path)
    assert prepare("ade20k_full_sem_seg", tmp_path, "--split", "val") == 0
    sizes = {}
    for path in sorted((tmp_path / FULL / "annotations_detectron2/validation").iterdir()):
        with Image.open(path) as file:
            assert (file.format, file.mode) == ("TIFF", "I;16")
            sizes[path.stem] = file.size
        image = tmp_path / FULL / f"images_detectron2/validation/{path.stem}.jpg"
        with Image.open(image) as file:
            assert (file.format, file.mode, file.size) == ("JPEG", "RGB", sizes[path.stem])
    assert list(sizes.values()) == [(641, 512), (512, 628), (600, 400)]
    # an image that keeps its size is not compressed again; a smaller one looks the same
    name = f"{list(sizes)[2]}.jpg"
    images = tmp_path / FULL / "images_detectron2/validation"
    assert (images / name).read_bytes() == (tmp_path / STREET / name).read_bytes()
    name = f"{next(iter(sizes))}.jpg"
    with Image.open(tmp_path / STREET / name) as file:
        reference = np.asarray(file.resize((641, 512), Image.Resampling.BILINEAR)).astype(float)
    assert np.abs(reference - np.asarray(Image.open(images / name))).mean() < 8
    assert not (tmp_path / FULL / "images_detectron2/training").exists()


def test_grey_and_turned_images_become_plain(tmp_path: Path) -> None:
    archives.write_ade20k_full(tmp_path)
    grey, turned = (tmp_path / STREET / f"ADE_val_0000000{i}.jpg" for i in (1, 3))
    Image.open(grey).convert("L").save(grey)
    exif = Image.Exif()
    exif[274] = 6
    Image.open(turned).save(turned, exif=exif)
    assert prepare("ade20k_full_sem_seg", tmp_path, "--split", "val") == 0
    images = tmp_path / FULL / "images_detectron2/validation"
    for path in (grey, turned):
        with Image.open(images / path.name) as file:
            assert (file.mode, file.getexif().get(274, 1)) == ("RGB", 1)


def test_context_formats(tmp_path: Path) -> None:
    archives.write_pascal_context(tmp_path)
    assert prepare("pascal_context", tmp_path) == 0
    folder = tmp_path / "VOCdevkit/VOC2010/annotations_detectron2"
    kinds = {}
    for path in folder.rglob("*.*"):
        with Image.open(path) as file:
            kinds[path.parent.name] = (file.format, file.mode)
    few, many = ("PNG", "L"), ("TIFF", "I;16")
    assert kinds == {
        "pc59_val": few,
        "pc59_train": few,
        "pc459_val": many,
        "pc459_train": many,
    }


# --- the command line


def test_finished_files_are_skipped_and_missing_ones_made(
    voc: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert prepare("voc_sem_seg", voc) == 0
    first = voc_maps(voc)
    assert len(first) == 3
    gone = sorted(first)[1]
    (voc / VOC / "annotations_detectron2/val" / gone).unlink()
    leftover = voc / VOC / "annotations_detectron2/val" / ".2009_000002-a1b2c3d4.png"
    leftover.write_bytes(b"of a run that was killed")
    assert prepare("voc_sem_seg", voc) == 0
    second = voc_maps(voc)
    assert set(second) == set(first)
    assert [name for name in first if first[name] != second[name]] == [gone]
    assert "val: 3 images: 1 prepared, 2 there already, 0 failed" in caplog.text
    assert prepare("voc_sem_seg", voc, "--overwrite", "--split", "val") == 0
    assert all(second[name] < written for name, written in voc_maps(voc).items())


def test_splits(voc: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert prepare("voc_sem_seg", voc, "--split", "train") == 0
    assert len(voc_maps(voc, "train")) == 3
    assert not (voc / VOC / "annotations_detectron2/val").exists()
    (voc / VOC / "ImageSets/Segmentation/train.txt").unlink()
    # not asked for by name, a split that is not there is no mistake
    assert prepare("voc_sem_seg", voc) == 0
    assert len(voc_maps(voc)) == 3
    assert "train: left out" in caplog.text
    with pytest.raises(UserError, match=r"train\.txt is missing; it comes from the VOC2012"):
        prepare("voc_sem_seg", voc, "--split", "train")


def test_any_number_of_workers_writes_the_same(voc: Path) -> None:
    run_script("voc_sem_seg", "--root", str(voc), "--num-workers", "1")
    folder = voc / VOC / "annotations_detectron2/val"
    alone = {path.name: path.read_bytes() for path in folder.iterdir()}
    run_script("voc_sem_seg", "--root", str(voc), "--num-workers", "5", "--overwrite")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == alone


MISSING: dict[str, tuple[str, Callable[[Path], None], str, str]] = {
    "voc label maps": (
        "voc_sem_seg",
        archives.write_voc,
        "VOCdevkit/VOC2012/SegmentationClassAug",
        "SegmentationClassAug.zip",
    ),
    "coco label maps": (
        "coco_stuff_sem_seg",
        archives.write_coco_stuff,
        "coco/stuffthingmaps/val2017",
        "stuffthingmaps_trainval2017.zip",
    ),
    "ade label maps": (
        "ade20k_sem_seg",
        archives.write_ade20k,
        "ADEChallengeData2016/annotations/validation",
        "ADEChallengeData2016.zip",
    ),
    "ade index": (
        "ade20k_full_sem_seg",
        archives.write_ade20k_full,
        "ADE20K_2021_17_01/index_ade20k.pkl",
        "ADE20K_2021_17_01.zip",
    ),
    "context classes": (
        "pascal_context",
        archives.write_pascal_context,
        "VOCdevkit/VOC2010/labels.txt",
        "pascal-context",
    ),
    "context ids": (
        "pascal_context",
        archives.write_pascal_context,
        "VOCdevkit/VOC2010/pascalcontext_val.txt",
        "README",
    ),
}


@pytest.mark.parametrize("case", MISSING)
def test_missing_input_is_named_with_its_source(case: str, tmp_path: Path) -> None:
    script, write, path, source = MISSING[case]
    write(tmp_path)
    (tmp_path / path).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError) as caught:
        prepare(script, tmp_path, "--split", "val")
    assert str(tmp_path / path) in str(caught.value)
    assert "is missing; it comes from" in str(caught.value)
    assert source in str(caught.value)


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--num-workers 0"):
        run_script("voc_sem_seg", "--root", str(tmp_path), "--num-workers", "0")
    with pytest.raises(UserError, match=r"--root .*nowhere: there is no such folder"):
        prepare("voc_sem_seg", tmp_path / "nowhere")


def test_as_a_script(voc: Path) -> None:
    broken = voc / VOC / "SegmentationClassAug/2009_000001.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    done = subprocess.run(
        [sys.executable, str(ROOT / "datasets/prepare_voc_sem_seg.py")],
        env={**os.environ, "DETECTRON2_DATASETS": str(voc), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"error: {broken} cannot be read" in done.stderr
    assert "val: 3 images: 2 prepared, 0 there already, 1 failed" in done.stderr
    assert len(voc_maps(voc)) == 2


# --- broken files: one line each, exit code 1, the others done


def spoil_voc(root: Path) -> list[str]:
    maps = root / VOC / "SegmentationClassAug"
    odd = np.asarray(Image.open(maps / "2009_000001.png")).copy()
    odd[3, 4] = 21
    Image.fromarray(odd).save(maps / "2009_000001.png")
    Image.fromarray(odd[:-1]).save(maps / "2009_000002.png")
    (root / VOC / "JPEGImages/2009_000003.jpg").unlink()
    return [
        "2009_000001.png: value 21 is no class",
        "2009_000002.png: 96 x 71 pixels, its image",
        "2009_000003.jpg is missing",
    ]


def spoil_coco(root: Path) -> list[str]:
    maps = root / "coco/stuffthingmaps/val2017"
    (maps / "000000001009.png").write_bytes(b"no picture")
    # category 12 has been taken out of the list
    odd = np.full((90, 64), 11, np.uint8)
    Image.fromarray(odd).save(maps / "000000001010.png")
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(maps / "000000001011.png")
    return [
        "000000001009.png cannot be read",
        "000000001010.png: value 11 is no class",
        "000000001011.png: 3 channels where one was expected",
    ]


def spoil_ade20k(root: Path) -> list[str]:
    ade = root / "ADEChallengeData2016"
    odd = np.full((72, 96), 151, np.uint8)
    Image.fromarray(odd).save(ade / "annotations/validation/ADE_val_00000001.png")
    (ade / "images/validation/ADE_val_00000002.jpg").write_bytes(b"")
    (ade / "annotations/validation/ADE_val_00000003.png").unlink()
    return [
        "ADE_val_00000001.png: value 151 is no class",
        "ADE_val_00000002.jpg cannot be read",
        "annotations/validation/ADE_val_00000003.png is missing",
    ]


def spoil_ade20k_full(root: Path) -> list[str]:
    street = root / STREET
    photo = street / "ADE_val_00000001.jpg"
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    (street / "ADE_val_00000002_seg.png").unlink()
    Image.new("RGB", (600, 401)).save(street / "ADE_val_00000003_seg.png")
    return [
        "ADE_val_00000001.jpg cannot be read (image file is truncated",
        "ADE_val_00000002_seg.png is missing",
        "ADE_val_00000003_seg.png: 600 x 401 pixels, its image",
    ]


def spoil_context(root: Path) -> list[str]:
    folder = root / "VOCdevkit/VOC2010/trainval"
    first = folder / "2009_000001.mat"
    first.write_bytes(first.read_bytes()[:150])
    scipy.io.savemat(folder / "2009_000002.mat", {"Other": np.zeros((2, 2))})
    numbers = np.full((80, 80), 460, np.uint16)
    scipy.io.savemat(folder / "2009_000003.mat", {"LabelMap": numbers})
    return [
        "2009_000001.mat cannot be read",
        "2009_000002.mat: it holds no LabelMap",
        "2009_000003.mat: value 460 is no class",
    ]


SPOILED = {
    "voc_sem_seg": (archives.write_voc, spoil_voc),
    "coco_stuff_sem_seg": (archives.write_coco_stuff, spoil_coco),
    "ade20k_sem_seg": (archives.write_ade20k, spoil_ade20k),
    "ade20k_full_sem_seg": (archives.write_ade20k_full, spoil_ade20k_full),
    "pascal_context": (archives.write_pascal_context, spoil_context),
}


@pytest.mark.parametrize("script", SPOILED)
def test_broken_files_are_named_and_the_others_done(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, spoil = SPOILED[script]
    write(tmp_path)
    expected = spoil(tmp_path)
    assert prepare(script, tmp_path) == 1
    lines = said(capsys)
    assert len(lines) == len(expected)
    for part in expected:
        assert any(part in line for line in lines)
    assert all("unpack" in line for line in lines)
    # of the other split everything is there, of the spoiled one nothing that is broken
    maps = [path for path in tmp_path.rglob("*_detectron2/*/*") if path.suffix in {".png", ".tif"}]
    per_image = 2 if script == "pascal_context" else 1
    assert len(maps) == (6 - len(expected)) * per_image
    for path in maps:
        read_labels(path)
    # what is mended is done by the same command
    write(tmp_path)
    assert prepare(script, tmp_path) == 0
    assert not said(capsys)


@pytest.mark.parametrize(
    ("script", "image"),
    [
        ("voc_sem_seg", "VOCdevkit/VOC2012/JPEGImages/2009_000002.jpg"),
        ("coco_stuff_sem_seg", "coco/val2017/000000001010.jpg"),
        ("ade20k_sem_seg", "ADEChallengeData2016/images/validation/ADE_val_00000002.jpg"),
        ("pascal_context", "VOCdevkit/VOC2010/JPEGImages/2009_000002.jpg"),
    ],
)
def test_truncated_images_are_named(
    script: str, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SPOILED[script][0](tmp_path)
    path = tmp_path / image
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    assert prepare(script, tmp_path, "--split", "val") == 1
    (line,) = said(capsys)
    assert f"{path} cannot be read (image file is truncated" in line
    # bytes after the end do no harm
    path.write_bytes(whole + b"\0\0")
    assert prepare(script, tmp_path, "--split", "val") == 0


def test_truncated_images_that_are_no_jpeg(tmp_path: Path) -> None:
    image, labels = tmp_path / "a.jpg", tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    Image.fromarray(noise).save(image, "PNG")
    check_image(image, labels, (20, 30))
    image.write_bytes(image.read_bytes()[:-300])
    with pytest.raises(BrokenFileError, match=r"a\.jpg cannot be read"):
        check_image(image, labels, (20, 30))


def test_image_without_label_map_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archives.write_coco_stuff(tmp_path)
    gone = tmp_path / "coco/stuffthingmaps/val2017/000000001010.png"
    gone.unlink()
    assert prepare("coco_stuff_sem_seg", tmp_path) == 1
    assert said(capsys) == [f"error: {gone} is missing; unpack the archive again"]
    assert len(list((tmp_path / "coco/stuffthingmaps_detectron2/val2017").iterdir())) == 2
    # without images nobody knows of it
    (tmp_path / "coco/val2017").rename(tmp_path / "later")
    assert prepare("coco_stuff_sem_seg", tmp_path, "--split", "val", "--overwrite") == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1, 65537]], "value 65537 is no whole number from 0 to 65535"),
        ([[1, -1]], "value -1 is no whole number"),
        ([[1.0, 3.5]], "value 3.5 is no whole number"),
        ([[1.0, np.nan]], "value nan is no whole number"),
        (np.ones((2, 3, 3)), r"shape \(2, 3, 3\), no map of numbers"),
        (np.ones((0, 0)), r"shape \(0, 0\), no map of numbers"),
        ("grass", "no map of numbers"),
        ([[1 + 1j]], "no map of numbers"),
    ],
)
def test_label_mat_with_other_values_is_a_broken_file(
    value: object, message: str, tmp_path: Path
) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"LabelMap": value})
    with pytest.raises(BrokenFileError, match=rf"a\.mat: .*{message}"):
        read_label_mat(tmp_path / "a.mat")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
def test_label_mat_of_any_number_type(dtype: type, tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"LabelMap": np.array([[0, 7, 255]], dtype)})
    labels = read_label_mat(tmp_path / "a.mat")
    assert (labels.dtype, labels.tolist()) == (np.uint16, [[0, 7, 255]])


def test_one_odd_label_mat_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archives.write_pascal_context(tmp_path)
    folder = tmp_path / "VOCdevkit/VOC2010/trainval"
    scipy.io.savemat(folder / "2009_000001.mat", {"LabelMap": "grass"})
    scipy.io.savemat(folder / "2009_000002.mat", {"LabelMap": np.ones((90, 64, 2))})
    assert prepare("pascal_context", tmp_path, "--split", "val") == 1
    assert len(said(capsys)) == 2
    assert len(list(tmp_path.rglob("pc459_val/2009_000003.tif"))) == 1


def test_lists_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    archives.write_pascal_context(tmp_path)
    voc = tmp_path / "VOCdevkit/VOC2010"
    ids = (voc / "pascalcontext_val.txt").read_text()
    (voc / "pascalcontext_val.txt").write_text(ids, encoding="utf-16")
    with pytest.raises(UserError, match=r"pascalcontext_val\.txt is no UTF-8 text"):
        prepare("pascal_context", tmp_path, "--split", "val")
    (voc / "pascalcontext_val.txt").write_text(ids, encoding="utf-8-sig")
    assert prepare("pascal_context", tmp_path, "--split", "val") == 0
    (voc / "labels.txt").write_text("1: caf\xe9\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"labels\.txt is no UTF-8 text"):
        prepare("pascal_context", tmp_path, "--split", "val")


def test_index_that_would_run_code_is_refused(tmp_path: Path) -> None:
    archives.write_ade20k_full(tmp_path)
    index = tmp_path / FULL / "index_ade20k.pkl"

    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    index.write_bytes(pickle.dumps({"folder": [Evil()], "filename": ["a"]}))
    with pytest.raises(
        UserError, match=r"index_ade20k\.pkl cannot be read .*system is not allowed"
    ):
        prepare("ade20k_full_sem_seg", tmp_path)
    assert not (tmp_path / "pwned").exists()
    index.write_bytes(index.read_bytes()[:20])
    with pytest.raises(UserError, match=r"index_ade20k\.pkl cannot be read"):
        prepare("ade20k_full_sem_seg", tmp_path)


def test_context_class_list_that_does_not_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archives.write_pascal_context(tmp_path)
    path = tmp_path / "VOCdevkit/VOC2010/labels.txt"
    text = path.read_text()
    # blanks may be set differently
    path.write_text(text.replace("pottedplant", "potted plant").replace(": ", " :"))
    assert prepare("pascal_context", tmp_path, "--split", "val") == 0
    path.write_text(text.replace("accordion", "akkordeon"))
    assert prepare("pascal_context", tmp_path, "--split", "val") == 0
    assert "does not name class 1 'accordion'" in caplog.text
    path.write_text(text.replace(": bicycle", ": bike"))
    with pytest.raises(UserError, match=r"lacks class 'bicycle'"):
        prepare("pascal_context", tmp_path, "--split", "val")
    path.write_text(text.replace("7: atrium", "atrium"))
    with pytest.raises(UserError, match=r"line 'atrium' is not 'id: name'"):
        prepare("pascal_context", tmp_path, "--split", "val")


def test_label_maps_can_be_prepared_before_the_images_are_there(
    voc: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (voc / VOC / "JPEGImages").rename(voc / "later")
    assert prepare("voc_sem_seg", voc, "--split", "val") == 0
    assert "JPEGImages is missing: label maps are not compared" in caplog.text
    assert len(voc_maps(voc)) == 3


# --- the runner


def test_failures_do_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def job(index: int) -> Job:
        output = tmp_path / f"{index}.txt"

        def work() -> None:
            if index % 3 == 0:
                raise BrokenFileError(f"file {index} is\nbroken")
            with atomic_path(output) as path:
                path.write_text(str(index))

        return Job((output,), work)

    threads = cv2.getNumThreads()
    tally = run_jobs([job(index) for index in range(20)], num_workers=4)
    assert (tally.done, tally.skipped, tally.failed) == (13, 0, 7)
    assert sorted(int(path.stem) for path in tmp_path.iterdir()) == [
        index for index in range(20) if index % 3
    ]
    assert sorted(said(capsys)) == sorted(f"error: file {i} is broken" for i in range(0, 20, 3))
    assert cv2.getNumThreads() == threads


def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    def work() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"a\.png cannot be written \(No space left on device\)"):
        run_jobs([Job((tmp_path / "a.png",), work)], num_workers=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/folder cannot be written"):
        run_jobs([Job((tmp_path / "file/folder/a.png",), work)], num_workers=1)
