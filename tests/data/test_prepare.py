"""Preparation of raw archives: what is written, and restarts."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, prepare, said
from PIL import Image

from ovseg.data.preparation.files import BrokenFileError
from ovseg.data.preparation.labels import (
    ade20k_object_ids,
    label_table,
    relabel,
    short_side_size,
)
from ovseg.data.preparation.runner import Job, run_jobs
from ovseg.errors import UserError
from ovseg.utils.io import atomic_path
from tools import make_sample_archives as archives
from tools.make_sample_archives import FULL, STREET, VOC


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    archives.write_voc(tmp_path)
    return tmp_path


def voc_maps(root: Path, split: str = "val") -> dict[str, int]:
    """Prepared label maps and when they were written."""
    folder = root / VOC / "annotations_detectron2" / split
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


# --- arrays


@pytest.mark.parametrize(("ignore_label", "dtype"), [(255, np.uint8), (65535, np.uint16)])
@pytest.mark.parametrize("raw_type", [np.uint8, np.uint16])
def test_relabel_four_by_two(ignore_label: int, dtype: type, raw_type: type) -> None:
    table = label_table({5: 0, 9: 1}, 256, ignore_label, ignored=[0])
    raw = np.array([[5, 9, 0, 0], [9, 9, 5, 0]], raw_type)
    labels = relabel(raw, table)
    none = ignore_label
    assert labels.tolist() == [[0, 1, none, none], [1, 1, 0, none]]
    assert labels.dtype == dtype
    raw[1, 2] = 6
    with pytest.raises(ValueError, match="value 6"):
        relabel(raw, table)
    if raw_type is np.uint16:
        raw[1, 2] = 300
        with pytest.raises(ValueError, match="value 300"):
            relabel(raw, table)


def test_numbers_without_a_class_are_ignored_unless_some_are_named() -> None:
    raw = np.array([[5, 6]], np.uint8)
    assert relabel(raw, label_table({5: 0}, 256, 255)).tolist() == [[0, 255]]
    with pytest.raises(ValueError, match="value 6"):
        relabel(raw, label_table({5: 0}, 256, 255, ignored=[]))


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
    leftover = voc / VOC / "annotations_detectron2/val" / ".2009_000002-0000-7-a1b2c3d4.png"
    leftover.write_bytes(b"of a run that was killed")
    os.utime(leftover, (0, 0))
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
    assert prepare("voc_sem_seg", voc, "--num-workers", "1") == 0
    folder = voc / VOC / "annotations_detectron2/val"
    alone = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert prepare("voc_sem_seg", voc, "--num-workers", "5", "--overwrite") == 0
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
        prepare("voc_sem_seg", tmp_path, "--num-workers", "0")
    with pytest.raises(UserError, match=r"--root .*nowhere: there is no such folder"):
        prepare("voc_sem_seg", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--num-workers: invalid int value: 'abc'; see --help"):
        prepare("voc_sem_seg", tmp_path, "--num-workers", "abc")


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
