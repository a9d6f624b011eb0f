"""What is found wrong with data before a run, on data sets that are made here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ovseg.data import data_check
from ovseg.data.data_check import check_data
from ovseg.data.data_report import DataReport
from ovseg.data.own.registration import register_custom
from ovseg.errors import UserError

pytestmark = pytest.mark.usefixtures("forget_data_sets")

CLASSES = ["sky", "sea"]


Look = Callable[..., DataReport]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Looks at a data set of the label maps given, each of 4 x 4 pixels, and black images."""
    for folder in ("photos", "maps"):
        (tmp_path / folder).mkdir()

    def report(
        maps: list[Any], everything: bool = False, kind: type = np.uint8, **keys: Any
    ) -> DataReport:
        for index, pixels in enumerate(maps):
            Image.new("RGB", (4, 4)).save(tmp_path / f"photos/{index}.jpg")
            Image.fromarray(np.array(pixels, kind)).save(tmp_path / f"maps/{index}.png")
        description = {"name": "mine", "images": "photos", "labels": "maps", "classes": CLASSES}
        description.update(keys)
        kept = {key: value for key, value in description.items() if value is not None}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(kept))
        register_custom([tmp_path / "mine.yaml"])
        return check_data("mine", everything)

    return report


def both(*values: int) -> list[list[int]]:
    """A map of four rows, of the values in turn."""
    return [[values[row % len(values)]] * 4 for row in range(4)]


def test_counts_of_pixels_and_images(look: Look) -> None:
    report = look([both(0, 0, 0, 1), both(0, 255), both(0)])
    assert report.pixels.tolist() == [12 + 8 + 16, 4]
    assert report.occurrences.tolist() == [3, 1]
    assert report.ignored_pixels == 8
    assert (report.images, report.checked) == (3, 3)
    assert report.warnings() == []
    assert report.problem(training=True) is None
    lines = [" ".join(line.split()) for line in report.table().splitlines()]
    assert lines[0] == "Data set mine, all 3 images:"
    assert lines[3:] == ["sky 36 75.00 3", "sea 4 8.33 1", "(ignored) 8 16.67"]


def test_binary_masks(look: Look) -> None:
    report = look([both(0, 255)])
    (line,) = report.warnings()
    assert line.startswith("data set mine: 1 of 2 classes have not a single pixel: sea; ")
    assert "values: {0: sky, 255: sea} in place of classes" in line
    (line,) = look([both(0, 255)], classes=["ball"]).warnings()
    assert "values: {255: ball} in place of classes" in line
    # the key does read them
    report = look([both(0, 255)], classes=None, values={0: "sky", 255: "sea"})
    assert report.pixels.tolist() == [8, 8]
    assert report.warnings() == []


def test_zero_is_unlabelled(look: Look) -> None:
    report = look([both(0, 1), both(1, 2)])
    said = report.problem(training=True)
    assert said is not None
    assert "1 of 2 label maps do not fit" in said
    assert "1.png holds label 2, outside the 2 classes" in said
    assert "values: {1: sky, 2: sea} and ignore_value: 0 in place of classes" in said
    assert "prepare" not in said
    fixed = look([both(0, 1), both(1, 2)], classes=None, values={1: "sky", 2: "sea"},
                 ignore_value=0)  # fmt: skip
    assert fixed.problem(training=True) is None
    assert fixed.warnings() == []


def test_other_values_are_listed(look: Look) -> None:
    said = look([both(0, 50, 100)]).problem(training=False)
    assert said is not None
    assert "name the values that occur: values: {0: ..., 50: ..., 100: ...}" in said
    said = look([both(50, 100)]).problem(training=False)
    assert said is not None
    assert "values: {50: sky, 100: sea}" in said


def test_colour_masks(look: Look) -> None:
    masks = [[[[255, 0, 0]] * 4] * 3 + [[[0, 0, 255]] * 4]] * 3
    said = look(masks).problem(training=False)
    assert said is not None
    assert "3 of 3 label maps do not fit" in said
    assert "colors: {'#ff0000': ..., '#0000ff': ...} in place of classes" in said
    colors = {"#ff0000": "sky", "#0000ff": "sea"}
    report = look(masks, classes=None, colors=colors)
    assert sorted(report.pixels.tolist()) == [12, 36]


def test_grey_values_in_three_channels(look: Look) -> None:
    grey = np.repeat(np.array(both(0, 1))[..., None], 3, axis=-1)
    report = look([grey, grey])
    said = report.problem(training=True)
    assert said is not None
    assert "colors: {'#000000': sky, '#010101': sea} in place of classes" in said
    fixed = look([grey, grey], classes=None, colors={"#000000": "sky", "#010101": "sea"})
    assert fixed.pixels.tolist() == [16, 16]


def test_a_single_colour_mask_changes_nothing_for_the_others(look: Look, tmp_path: Path) -> None:
    colour = np.zeros((4, 4, 3), np.uint8)
    said = look([both(0, 1), colour]).problem(training=True)
    assert said is not None
    assert "1 of 2 label maps do not fit" in said
    assert "1.png has 3 channels" in said
    assert "its label maps are colour masks" not in said


def test_the_largest_value_may_be_ignored(look: Look, tmp_path: Path) -> None:
    maps = [np.array(both(0, 1, 65535), np.uint16)] * 2
    said = look(maps, kind=np.uint16).problem(training=True)
    assert said is not None
    assert said.endswith("; if 65535 means ignored, write ignore_value: 65535")
    report = look(maps, kind=np.uint16, ignore_value=65535)
    assert report.problem(training=True) is None
    assert (report.pixels.tolist(), report.ignored_pixels) == ([16, 8], 8)


def test_more_than_255_classes_ignore_65535(look: Look) -> None:
    names = [f"class {number}" for number in range(300)]
    maps = [np.array(both(0, 255, 299, 65535), np.uint16)]
    report = look(maps, kind=np.uint16, classes=names)
    assert report.problem(training=True) is None
    assert (report.pixels[[0, 255, 299]].tolist(), report.ignored_pixels) == ([4, 4, 4], 4)


@pytest.mark.parametrize("side", [4, 6])
def test_an_image_that_is_turned_and_a_label_map_that_is_not(
    look: Look, tmp_path: Path, side: int
) -> None:
    look([both(0, 1)])
    exif = Image.Exif()
    exif[0x0112] = side  # 6: turned to its side, 4: upside down
    Image.new("RGB", (8, 4)).save(tmp_path / "photos/0.jpg", exif=exif)
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(tmp_path / "maps/0.png")
    said = check_data("mine").problem(training=True)
    turned = "4 x 8, since its EXIF data say to turn it: turn the label map too, or correct it"
    assert said is None if side == 4 else turned in str(said)


def test_a_class_without_a_pixel(look: Look) -> None:
    (line,) = look([both(0, 1)], classes=["sky", "sea", "gull"]).warnings()
    assert line == "data set mine: 1 of 3 classes have not a single pixel: gull"


def test_everything_is_ignored(look: Look) -> None:
    said = look([both(255)] * 2).problem(training=False)
    assert said is not None
    assert "every pixel of 2 images is ignored; correct them, or what " in said


def test_values_without_a_class_are_counted(look: Look) -> None:
    report = look([both(0, 1), both(7, 7, 1, 1)], classes=None, values={1: "sky"})
    lines = report.warnings()
    assert lines[0] == (
        "data set mine: value 0: 8 pixels are ignored, since no class is named for it"
    )
    assert "value 7: 8 pixels" in lines[1]
    strict = look([both(0, 1)], classes=None, values={1: "sky"}, strict=True)
    said = strict.problem(training=True)
    assert said is not None
    assert "8 pixels of value 0, which values does not name" in said


def test_sizes_that_differ(look: Look, tmp_path: Path) -> None:
    look([both(0, 1)] * 3)
    Image.new("RGB", (8, 4)).save(tmp_path / "photos/1.jpg")
    report = check_data("mine")
    said = report.problem(training=True)
    assert said is not None
    assert "1.png is 4 x 4 pixels, its image" in said
    assert "1.jpg 8 x 4" in said
    assert "mine.yaml" in said
    # an evaluation leaves one out, and ends with code 1
    assert report.problem(training=False) is None
    assert "1 label map does not fit" in report.warnings()[0]


def test_broken_files_of_many(look: Look, tmp_path: Path) -> None:
    look([both(0, 1)] * 12)
    (tmp_path / "maps/3.png").write_bytes(b"")
    picture = tmp_path / "photos/5.jpg"
    picture.write_bytes(picture.read_bytes()[:-8])
    report = check_data("mine")  # of images it reads the heads
    assert len(report.unreadable) == 1
    assert "3.png cannot be read" in report.unreadable[0]
    report = check_data("mine", everything=True)
    assert len(report.unreadable) == 2
    assert report.problem(training=True, allowed=2) is None
    said = report.problem(training=True, allowed=1)
    assert said is not None
    assert "2 files cannot be read, more than the 1" in said
    assert "DATALOADER.MAX_LOST" in said
    assert report.problem(training=False) is None


def test_large_data_sets_are_sampled(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_check, "AT_MOST", 3)
    report = look([both(0), both(1), both(0), both(0), both(0)])
    assert (report.checked, report.images) == (3, 5)
    assert "3 of 5 (--check-data: all) images" in report.table()
    assert report.warnings() == []  # a class that the sample lacks may occur elsewhere
    assert check_data("mine", everything=True).pixels.tolist() == [64, 16]


def test_images_alone(look: Look) -> None:
    with pytest.raises(UserError, match="mine has images alone; .*ovseg segment --dataset"):
        look([both(0)], labels=None)
