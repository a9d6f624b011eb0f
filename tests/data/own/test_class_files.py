"""Classes and colours that the yaml file leaves to files of annotation tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ovseg.data.datasets import load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.own.registration import dataset_vocabulary, register_custom
from ovseg.errors import UserError

NONE = 255
BLACK, RED, BLUE = (0, 0, 0), (250, 50, 83), (61, 61, 245)
MASK = [[BLACK, RED, RED, BLUE]] * 4
LABEL_MAP = """# label:color_rgb:parts:actions
background:0,0,0::
ball:250,50,83::
fence: wooden:1,2,3:post,wire:
chips:61,61,245::
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Laid out as CVAT's "Segmentation mask 1.1": a picture of 4 x 4 pixels and its colours."""
    for name in ("JPEGImages", "SegmentationClass"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "JPEGImages/a.jpg")
    Image.fromarray(np.array(MASK, np.uint8)).save(tmp_path / "SegmentationClass/a.png")
    (tmp_path / "labelmap.txt").write_text(LABEL_MAP.replace("fence: wooden", "fence"))
    known = set(DatasetCatalog.list())
    yield tmp_path
    for name in set(DatasetCatalog.list()) - known:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def truth(folder: Path, **keys: Any) -> tuple[list[Any], tuple[tuple[str, ...], ...]]:
    """The label map of the picture, its first row, and the words of the classes."""
    file = folder / "mine.yaml"
    content = {"name": "mine", "images": "JPEGImages", **keys}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    register_custom([file])
    (example,) = load_dataset("mine")
    labels = read_truth(example)
    return labels[0].tolist(), dataset_vocabulary("mine").words_of_class


def masks(folder: Path, **keys: Any) -> tuple[list[Any], tuple[tuple[str, ...], ...]]:
    return truth(folder, labels="SegmentationClass", colors="labelmap.txt", **keys)


def test_the_label_map_of_cvat(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert masks(folder) == ([NONE, 0, 0, 2], (("ball",), ("fence",), ("chips",)))
    assert not caplog.records  # CVAT's background is no surprise
    named = (("ball",), ("fence",), ("chips",), ("table", "desk"))
    assert masks(folder, background=["table", "desk"]) == ([3, 0, 0, 2], named)
    # another colour to ignore: the background is then one that nothing names
    assert masks(folder, ignore_value="rgb(1,2,4)")[0] == [NONE, 0, 0, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LABEL_MAP, "' wooden' is no colour|' wooden:1,2,3|rgb\\(wooden\\)' is no colour"),
        ("ball:1,2,3::\nchips:1,2,3::\n", "'ball' and 'chips' have one colour, rgb\\(1,2,3\\)"),
        ("ball:1,2,3::\nchips:1, 2, 3::\n", "'ball' and 'chips' have one colour"),
        ("ball\n", "line 1: 'ball' is no label of CVAT"),
        ("ball:300::\n", "is no colour"),
        ("# nothing\n", "names no colours"),
        ("\xff\xfe", "names no colours|is no label of CVAT|cannot be read"),
    ],
)
def test_mistakes_in_it(folder: Path, text: str, message: str) -> None:
    (folder / "labelmap.txt").write_text(text, "latin-1")
    with pytest.raises(UserError, match=message):
        masks(folder)


def test_background_needs_its_label(folder: Path) -> None:
    (folder / "labelmap.txt").write_text("ball:250,50,83::\n")
    with pytest.raises(UserError, match="background names the label 'background' of CVAT's"):
        masks(folder, background="table")
    colors = {"#ff0000": "ball"}
    with pytest.raises(UserError, match="name its colour under colors"):
        truth(folder, labels="SegmentationClass", colors=colors, background="table")
    with pytest.raises(UserError, match=r"colors '.*none\.txt' does not exist"):
        truth(folder, labels="SegmentationClass", colors="none.txt")


def polygons(folder: Path, names: Any) -> tuple[list[Any], tuple[tuple[str, ...], ...]]:
    (folder / "yolo").mkdir(exist_ok=True)
    (folder / "yolo/a.txt").write_text("1 0 0 .5 0 .5 1 0 1\n")
    content = {"path": "../somewhere", "val": "images/val", "nc": 2, "names": names}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return truth(folder, yolo="yolo", classes="data.yaml")


def test_the_names_of_a_yolo_data_set(folder: Path) -> None:
    expected = ([1, 1, NONE, NONE], (("ball",), ("chips",)))
    assert polygons(folder, ["ball", "chips"]) == expected
    assert polygons(folder, {1: "chips", 0: "ball"}) == expected
    with pytest.raises(UserError, match="names must count from 0 without a gap"):
        polygons(folder, {1: "ball", 2: "chips"})
    for nothing in (None, [], "ball"):
        with pytest.raises(UserError, match=r"data\.yaml has no names"):
            polygons(folder, nothing)


def test_names_in_a_text_file_and_built_in_ones(folder: Path) -> None:
    polygons(folder, ["ball", "chips"])
    (folder / "classes.txt").write_text("ball\nfries | chips\n")
    labels, words = truth(folder, yolo="yolo", classes="classes.txt")
    assert (labels, words) == ([1, 1, NONE, NONE], (("ball",), ("fries", "chips")))
    labels, words = truth(folder, yolo="yolo", classes="pascal-voc-20")
    assert (labels, words[:2], len(words)) == (
        [1, 1, NONE, NONE], (("aeroplane",), ("bicycle",)), 20
    )  # fmt: skip
    with pytest.raises(UserError, match=r"mine\.yaml: classes, vocabulary 'pascal-voc'"):
        truth(folder, yolo="yolo", classes="pascal-voc")


def test_a_category_that_holds_the_others_is_no_class(folder: Path) -> None:
    square = [0, 0, 2, 0, 2, 4, 0, 4]
    categories = [
        {"id": 0, "name": "snacks", "supercategory": "none"},
        {"id": 1, "name": "ball", "supercategory": "snacks"},
        {"id": 2, "name": "person", "supercategory": "person"},
    ]
    document = {
        "images": [{"id": 0, "file_name": "a.jpg", "height": 4, "width": 4}],
        "categories": categories,
        "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "segmentation": [square]}],
    }
    (folder / "instances.json").write_text(json.dumps(document))
    expected = ([0, 0, NONE, NONE], (("ball",), ("person",)))
    assert truth(folder, coco_json="instances.json") == expected
    (folder / "instances.json").write_text(json.dumps({**document, "categories": []}))
    with pytest.raises(UserError, match="has no categories, which are the classes"):
        truth(folder, coco_json="instances.json")
    document["annotations"][0]["category_id"] = 0
    (folder / "instances.json").write_text(json.dumps(document))
    words = (("snacks",), ("ball",), ("person",))
    assert truth(folder, coco_json="instances.json") == ([0, 0, NONE, NONE], words)


def test_labelme_by_way_of_supervision(folder: Path) -> None:
    """The lines of docs/own-data.md."""
    supervision = pytest.importorskip("supervision", reason="pip install supervision")
    points = [[0, 0], [2, 0], [2, 4], [0, 4]]
    shape = {"label": "ball", "points": points, "shape_type": "polygon", "group_id": None}
    content = {
        "version": "5.5.0", "flags": {}, "shapes": [shape], "imagePath": "a.jpg",
        "imageData": None, "imageHeight": 4, "imageWidth": 4,
    }  # fmt: skip
    images = folder / "JPEGImages"
    (images / "a.json").write_text(json.dumps(content))
    data = supervision.DetectionDataset.from_labelme(str(images), str(images))
    data.as_coco(annotations_path=str(folder / "instances.json"))
    labels, words = truth(folder, coco_json="instances.json")
    assert words == (("ball",),)
    assert labels[:2] == [0, 0]
    assert labels[3] == NONE
