"""Preparation of archives with broken files: one line each, exit code 1, the others done."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from conftest import prepare, said
from PIL import Image

from ovseg.data.label_maps import read_labels
from ovseg.data.preparation.files import BrokenFileError, check_image, read_label_mat
from ovseg.errors import UserError
from tools import make_sample_archives as archives
from tools.make_sample_archives import FULL, STREET, VOC


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
    (maps / "000000001009.png").write_bytes(b"no image")
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
