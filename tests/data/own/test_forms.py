"""Every form of ground truth on 4 x 4 pixels, whose label maps a reader can check."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as coco_mask

from ovseg.data.datasets import ignore_label, load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.own.registration import dataset_vocabulary, register_custom
from ovseg.errors import UserError

pytestmark = pytest.mark.usefixtures("forget_data_sets")

BALL, CHIPS, NONE = 0, 1, 255
VALUES = {1: "ball", 2: ["fries", "chips"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With an image of 4 x 4 pixels, ``photos/a.jpg``."""
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "photos/a.jpg")
    return tmp_path


def describe(folder: Path, **keys: Any) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({"name": "mine", "images": "photos", **keys}, sort_keys=False))
    return file


def registered(folder: Path, **keys: Any) -> list[dict[str, Any]]:
    register_custom([describe(folder, **keys)])
    return load_dataset("mine")


def truth(folder: Path, **keys: Any) -> list[list[int]]:
    (example,) = registered(folder, **keys)
    return read_truth(example).tolist()


def refused(folder: Path, message: str, **keys: Any) -> None:
    with pytest.raises(UserError, match=message):
        truth(folder, **keys)


def write_map(folder: Path, pixels: Any, name: str = "a.png", dtype: type = np.uint8) -> None:
    (folder / "maps").mkdir(exist_ok=True)
    Image.fromarray(np.array(pixels, dtype)).save(folder / "maps" / name)


# ---- values


MAP = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 0, 7], [2, 2, 255, 0]]
LABELS = [[NONE, NONE, BALL, BALL]] * 2 + [
    [CHIPS, CHIPS, NONE, NONE],
    [CHIPS, CHIPS, NONE, NONE],
]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values(folder: Path, dtype: type, caplog: pytest.LogCaptureFixture) -> None:
    write_map(folder, MAP, dtype=dtype)
    assert truth(folder, labels="maps", values=VALUES) == LABELS
    assert dataset_vocabulary("mine").names == ("ball", "fries")
    assert dataset_vocabulary("mine").words == ("ball", "fries", "chips")
    assert ignore_label("mine") == NONE
    # 255 is ignored by default, the others were not named
    assert "value 0 is ignored wherever it occurs" in caplog.text
    assert "(6 pixels" in caplog.text
    assert "value 7 is ignored wherever it occurs" in caplog.text
    assert "value 255" not in caplog.text


def test_zero_is_unlabelled(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_map(folder, [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2], [2, 2, 0, 0]])
    keys = {"labels": "maps", "values": VALUES, "ignore_value": 0, "strict": True}
    assert truth(folder, **keys) == [
        [NONE, NONE, BALL, BALL],
        [NONE, NONE, BALL, BALL],
        [CHIPS, CHIPS, CHIPS, CHIPS],
        [CHIPS, CHIPS, NONE, NONE],
    ]
    assert not caplog.text


def test_binary_mask(folder: Path) -> None:
    write_map(folder, [[0, 0, 255, 255]] * 4)
    values = {0: "grass", 255: "ball"}
    assert truth(folder, labels="maps", values=values) == [[0, 0, 1, 1]] * 4
    assert truth(folder, labels="maps", values={255: "ball"}) == [[255, 255, 0, 0]] * 4


def test_strict_refuses_what_is_not_named(folder: Path) -> None:
    write_map(folder, MAP)
    keys = {"labels": "maps", "values": VALUES, "strict": True}
    refused(folder, r"a\.png: 6 pixels of value 0, which values does not name", **keys)


def test_more_classes_than_8_bits(folder: Path) -> None:
    write_map(folder, [[1000, 1256, 1299, 0]] * 4, dtype=np.uint16)
    values = {1000 + number: f"word {number}" for number in range(300)}
    assert truth(folder, labels="maps", values=values) == [[0, 256, 299, 65535]] * 4
    assert ignore_label("mine") == 65535


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"values": {}}, "values is no mapping; write values"),
        ({"values": ["ball"]}, "values is no mapping"),
        ({"values": {"one": "ball"}}, "values, 'one' is no whole number"),
        ({"values": {True: "ball"}}, "values, True is no whole number"),
        ({"values": {1: "ball", 2: "Ball"}}, "'Ball' stands for classes 1 and 2"),
        ({"values": VALUES, "ignore_value": 1}, "ignore_value 1 is that of class 'ball'"),
        ({"values": VALUES, "strict": "yes"}, "strict 'yes' is neither true nor false"),
        ({"values": VALUES, "classes": ["ball"]}, "remove classes"),
        ({"values": VALUES, "background": "sky"}, "with values there is no background"),
        ({"classes": ["ball", "chips"], "ignore_value": 0},
         r"name the values themselves: values: \{1: ball, 2: chips\} in place of classes"),
    ],
)  # fmt: skip
def test_mistakes_in_values(folder: Path, keys: dict[str, Any], message: str) -> None:
    write_map(folder, MAP)
    refused(folder, message, labels="maps", **keys)


def test_a_value_that_is_named_twice(folder: Path) -> None:
    write_map(folder, MAP)
    file = folder / "twice.yaml"
    file.write_text(
        "name: mine\nimages: photos\nlabels: maps\nvalues: {1: ball, 2: chips, 0x1: sky}\n"
    )
    with pytest.raises(UserError, match=r"twice\.yaml: not valid yaml \(1 is there twice, line"):
        register_custom([file])


# ---- colors


RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 0), (255, 255, 255)
COLOURS = [[RED, RED, GREEN, GREEN]] * 3 + [[BLACK, BLACK, WHITE, RED]]
COLORS = {"#ff0000": "ball", "#008000": ["fries", "chips"]}
OF_COLOURS = [[BALL, BALL, CHIPS, CHIPS]] * 3 + [[NONE, NONE, NONE, BALL]]


def test_colours(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_map(folder, COLOURS)
    assert truth(folder, labels="maps", colors=COLORS) == OF_COLOURS
    assert "colour #000000 is ignored wherever it occurs" in caplog.text
    assert "(2 pixels of colour mask" in caplog.text
    keys = {"labels": "maps", "colors": COLORS, "strict": True}
    refused(folder, "2 pixels of colour #000000, which colors does not name", **keys)
    refused(folder, "1 pixels of colour #ffffff", **keys, ignore_value="black")


def test_colours_of_a_palette_and_with_transparency(folder: Path) -> None:
    write_map(folder, COLOURS)
    path = folder / "maps/a.png"
    picture = Image.open(path)
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    assert Image.open(path).mode == "P"
    assert truth(folder, labels="maps", colors=COLORS) == OF_COLOURS
    picture.convert("RGBA").save(path)
    assert truth(folder, labels="maps", colors=COLORS) == OF_COLOURS


@pytest.mark.parametrize(
    ("colors", "message"),
    [
        ({"#ff0000": "ball", "#FF0000": "chips"}, "'ball' and 'chips' have one colour, #ff0000"),
        ({"#f00": "ball", "red": "chips"}, "'ball' and 'chips' have one colour, #ff0000"),
        ({"reddish": "ball"}, "'reddish' is no colour"),
        ({7: "ball"}, "'7' is no colour|7 is no colour"),
        ({"#ff0000": "ball", "#008000": "ball"}, "'ball' stands for classes 1 and 2"),
        ([], "colors is no mapping"),
    ],
)
def test_mistakes_in_colours(folder: Path, colors: Any, message: str) -> None:
    write_map(folder, COLOURS)
    refused(folder, message, labels="maps", colors=colors)


# ---- COCO instances


def square(x: int, y: int, size: int) -> list[int]:
    return [x, y, x + size, y, x + size, y + size, x, y + size]


def code(pixels: list[list[int]], compressed: bool) -> dict[str, Any]:
    mask = np.asfortranarray(np.array(pixels, np.uint8))
    encoded = coco_mask.encode(mask)
    if compressed:
        return {"size": [4, 4], "counts": encoded["counts"].decode()}
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return {"size": [4, 4], "counts": runs if flat[0] == 0 else [0, *runs]}


def write_coco(folder: Path, *segmentations: tuple[int, Any], **changes: Any) -> None:
    """``instances.json`` with annotations of category 3, ball, and 7, chips."""
    document = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 4, "height": 4}],
        "categories": [{"id": 3, "name": "ball"}, {"id": 7, "name": "chips"}],
        "annotations": [
            {"id": number, "image_id": 5, "category_id": category, "segmentation": segmentation}
            for number, (category, segmentation) in enumerate(segmentations)
        ],
    } | changes
    (folder / "instances.json").write_text(json.dumps(document))


CORNER = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("form", ["polygon", "runs", "compressed"])
def test_coco(folder: Path, form: str) -> None:
    corner = [square(0, 0, 2)] if form == "polygon" else code(CORNER, form == "compressed")
    # the small ball in a corner lies on the chips, though it comes first
    write_coco(folder, (3, corner), (7, [square(0, 0, 3)]))
    expected = [[0, 0, 1, NONE], [0, 0, 1, NONE], [1, 1, 1, NONE], [NONE] * 4]
    assert truth(folder, coco_json="instances.json") == expected
    assert dataset_vocabulary("mine").names == ("ball", "chips")
    with_sky = [[2 if label == NONE else label for label in row] for row in expected]
    assert truth(folder, coco_json="instances.json", background="sky") == with_sky
    assert dataset_vocabulary("mine").names == ("ball", "chips", "sky")
    of_chips = [[1 if label == NONE else label for label in row] for row in expected]
    assert truth(folder, coco_json="instances.json", background="chips") == of_chips


def test_coco_categories_by_number(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_coco(folder, (3, [square(0, 0, 2)]), (7, [square(2, 2, 2)]))
    keys = {"coco_json": "instances.json", "values": {7: ["fries", "chips"]}}
    expected = [[NONE] * 4] * 2 + [[NONE, NONE, 0, 0]] * 2
    assert truth(folder, **keys) == expected
    assert "category 3 (ball) is ignored" in caplog.text
    refused(folder, r"a\.jpg in .*: 4 pixels of category 3 \(ball\)", **keys, strict=True)
    refused(
        folder, "has no category 4; it has 3 ball, 7 chips",
        coco_json="instances.json", values={4: "x"},
    )  # fmt: skip
    renamed = {"coco_json": "instances.json", "classes": ["football", ["fries", "chips"]]}
    assert truth(folder, **renamed)[0] == [0, 0, NONE, NONE]
    assert dataset_vocabulary("mine").words == ("football", "fries", "chips")
    refused(folder, "classes has 1 entries", coco_json="instances.json", classes=["football"])


def test_polygons_over_the_edges_are_cut_and_several_are_one(folder: Path) -> None:
    write_coco(folder, (3, [square(-2, -2, 3), square(3, 3, 9)]))
    assert truth(folder, coco_json="instances.json") == [
        [0, NONE, NONE, NONE], [NONE] * 4, [NONE] * 4, [NONE, NONE, NONE, 0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([square(5, 5, 2)], r"x 5 to 7, y 5 to 7 lies outside the image of 4 x 4"),
        ([square(0, 0, 10**7)], "lies outside the image of 4 x 4"),
        ([[0, 0, 2, 2]], "a polygon of 4 numbers has no three points"),
        ([[0, 0, 2, "x", 1, 1]], "annotations of a.jpg in"),
        ([[0, 0, 2, float("nan"), 1, 1]], "no finite number"),
        ({"size": [4, 4], "counts": [1, 2]}, "none of a mask of 4 x 4"),
        ({"size": [5, 4], "counts": [20]}, r"a mask of size \[5, 4\], the image has \[4, 4\]"),
    ],
)
def test_odd_coco_masks_are_named(folder: Path, segmentation: Any, message: str) -> None:
    write_coco(folder, (3, segmentation))
    refused(folder, message, coco_json="instances.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "has no categories, which are the classes"),
        ({"categories": [{"id": 3}]}, "is no COCO instances file"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "categories have one"),
        ({"images": [{"id": 5, "file_name": "a.jpg"}]}, "is no COCO instances file"),
        ({"annotations": [{"id": 1, "segmentation": [[0, 0, 1, 0, 1, 1]], "image_id": 9,
                           "category_id": 3}]}, "annotation 1 has image_id 9, which is not in"),
        ({"annotations": [{"id": 1, "segmentation": [[0, 0, 1, 0, 1, 1]], "image_id": 5,
                           "category_id": 9}]}, "annotation 1 has category_id 9, which is not in"),
        ({"annotations": [{"id": 1, "image_id": 5, "category_id": 3, "bbox": [0, 0, 1, 1],
                           "segmentation": []}]}, "its 1 annotations are boxes"),
        ({"annotations": [{"segments_info": []}]}, "a COCO panoptic file; .* panoptic_json"),
    ],
)  # fmt: skip
def test_odd_coco_files_are_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    write_coco(folder, **changes)
    refused(folder, message, coco_json="instances.json")


@pytest.mark.parametrize(
    "name", ["images/a.jpg", "images\\a.jpg", "../data/upload/1/a.jpg", "a.jpg"]
)
def test_coco_images_are_found_by_name(folder: Path, name: str) -> None:
    images = [{"id": 5, "file_name": name, "width": 4, "height": 4}]
    gone = {"id": 6, "file_name": "gone.jpg", "width": 4, "height": 4}
    write_coco(folder, (3, [square(0, 0, 4)]), images=[*images, gone])
    (example,) = registered(folder, coco_json="instances.json")
    assert Path(example["file_name"]) == folder / "photos/a.jpg"
    names = [Path(x["file_name"]).name for x in load_dataset("mine", unpaired=True)]
    assert names == ["a.jpg", "gone.jpg"]  # an evaluation names it


# ---- YOLO


def write_yolo(folder: Path, text: str, name: str = "a.txt") -> None:
    (folder / "yolo").mkdir(exist_ok=True)
    (folder / "yolo" / name).write_text(text)


def test_yolo(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "photos/empty.jpg")  # nothing is in it
    write_yolo(folder, "1 0 0 .75 0 .75 .75 0 .75\n\n0 0 0 .5 0 .5 .5 0 .5\n")
    first, second = registered(folder, yolo="yolo", classes=["ball", "chips"])
    expected = [[0, 0, 1, NONE], [0, 0, 1, NONE], [1, 1, 1, NONE], [NONE] * 4]
    assert read_truth(first).tolist() == expected
    assert read_truth(second).tolist() == [[NONE] * 4] * 4
    first, second = registered(folder, yolo="yolo", values={1: "chips"}, background="sky")
    assert read_truth(first).tolist() == [
        [NONE, NONE, 0, 1], [NONE, NONE, 0, 1], [0, 0, 0, 1], [1] * 4,
    ]  # fmt: skip
    assert read_truth(second).tolist() == [[1] * 4] * 4


def test_yolo_on_a_picture_that_is_turned(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown 2 wide, 4 high
    Image.new("RGB", (4, 2)).save(folder / "photos/a.jpg", exif=exif)
    write_yolo(folder, "0 0 0 1 0 1 .25 0 .25\n")
    labels = truth(folder, yolo="yolo", classes=["ball", "chips"])
    assert labels == [[0, 0]] + [[NONE, NONE]] * 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 .5 .5 1 1", r"a\.txt, line 1 is a box, not a polygon"),
        ("0 0 0 3 0 3 3", "coordinates up to 3 are no shares"),
        ("ball 0 0 1 0 1 1", "'ball 0 0 1 0 1 1' is no class and coordinates"),
        ("0 0 0 1 0 1", "no three points"),
        ("2 0 0 1 0 1 1", "class 2, but classes names 2, counted from 0"),
        ("0 0 0 1 0 nan 1", "are no shares of width and height"),
    ],
)
def test_odd_yolo_lines_are_named(folder: Path, line: str, message: str) -> None:
    write_yolo(folder, line)
    refused(folder, message, yolo="yolo", classes=["ball", "chips"])


def test_mistakes_with_yolo(folder: Path) -> None:
    write_yolo(folder, "0 0 0 1 0 1 1", "b.txt")
    refused(folder, "no file in .*yolo has the name of one", yolo="yolo", classes=["ball"])
    refused(folder, "'classes' is missing; add the names in YOLO's order", yolo="yolo")
    refused(folder, "is no folder", yolo="yolo/b.txt", classes=["ball"])
    refused(
        folder, r"no \.png files in .*yolo \(there are 1 \.txt; .* key yolo\)",
        labels="yolo", classes=["ball"],
    )  # fmt: skip


# ---- lists of files, images alone, names


def test_lists_of_files(folder: Path) -> None:
    for place, value in (("x", 0), ("y", 1)):
        (folder / place).mkdir()
        Image.new("RGB", (4, 4)).save(folder / place / "a.jpg")
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(folder / place / "a_gt.png")
    (folder / "images.txt").write_text(f"y/a.jpg\n\n{folder}/x/a.jpg\n")
    (folder / "labels.txt").write_text("y/a_gt.png\nx/a_gt.png\n")
    keys: dict[str, Any] = {"images": "images.txt", "classes": ["ball", "chips"]}
    examples = registered(folder, labels="labels.txt", **keys)
    assert [Path(x["file_name"]).parent.name for x in examples] == ["y", "x"]
    assert [int(read_truth(x)[0, 0]) for x in examples] == [1, 0]
    # one folder of label maps for two images of one name
    write_map(folder, CORNER)
    refused(folder, "have one name and would share a label file", labels="maps", **keys)
    (folder / "labels.txt").write_text("y/a_gt.png\n")
    refused(folder, "lists 1 label maps; images must be a list of as many", labels="labels.txt",
            **keys)  # fmt: skip
    (folder / "labels.txt").write_text("y/a.jpg\nx/a.jpg\n")
    refused(folder, r"\.jpg loses what is written into it", labels="labels.txt", **keys)
    (folder / "images.txt").write_text("gone/a.jpg\n")
    refused(folder, "none of its 1 files is there, .*gone/a.jpg first", labels="maps", **keys)
    (folder / "images.txt").write_text("x/a.jpg\n")
    (example,) = registered(folder, labels="maps", **keys)
    assert read_truth(example).tolist() == CORNER


def test_images_alone(folder: Path) -> None:
    (example,) = registered(folder, classes=["ball", ["fries", "chips"]])
    assert Path(example["file_name"]).name == "a.jpg"
    assert dataset_vocabulary("mine").words == ("ball", "fries", "chips")
    with pytest.raises(UserError, match=r"a\.jpg has no ground truth"):
        read_truth(example)
    with pytest.raises(UserError, match="label_ext says something of labels, and there are none"):
        registered(folder, classes=["ball"], label_ext="png")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_one_letter_or_two(folder: Path, form: str) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    name = "Zürich café"
    (folder / "photos/a.jpg").rename(folder / "photos" / unicodedata.normalize(form, f"{name}.jpg"))
    write_map(folder, CORNER, unicodedata.normalize(other, f"{name}.png"))
    assert truth(folder, labels="maps", classes=["ball", "chips"]) == CORNER


def test_endings_in_capitals(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "photos/b.JPG")
    write_map(folder, CORNER, "a.PNG")
    write_map(folder, CORNER, "b.Png")
    examples = registered(folder, labels="maps", classes=["ball", "chips"])
    assert [Path(x["file_name"]).name for x in examples] == ["a.jpg", "b.JPG"]
    assert all(read_truth(x).tolist() == CORNER for x in examples)
    Image.new("RGB", (4, 4)).save(folder / "photos/b.jpg")
    with pytest.raises(UserError, match=r"b\.JPG and .*b\.jpg have one name"):
        load_dataset("mine")


def test_jpeg_is_jpg_and_tiff_is_tif(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "photos/b.JPEG")
    write_map(folder, CORNER, "a.tif")
    write_map(folder, CORNER, "b.Tiff")
    for label_ext in ("tif", "tiff"):
        keys = {"labels": "maps", "classes": ["ball", "chips"], "label_ext": label_ext}
        examples = registered(folder, **keys)
        assert [Path(x["file_name"]).name for x in examples] == ["a.jpg", "b.JPEG"]
        assert all(read_truth(x).tolist() == CORNER for x in examples)


def test_images_have_any_ending_unless_one_is_given(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "photos/b.png")
    Image.new("RGB", (4, 4)).save(folder / "photos/c.webp")
    (folder / "photos/notes.txt").touch()
    for name in "abcd":
        write_map(folder, CORNER, f"{name}.png")
    keys = {"labels": "maps", "classes": ["ball", "chips"]}
    examples = registered(folder, **keys)
    names = ["a.jpg", "b.png", "c.webp"]
    assert [Path(x["file_name"]).name for x in examples] == names
    told = [Path(x["file_name"]).name for x in load_dataset("mine", unpaired=True)]
    assert told == [*names, "d.*"]  # what its label map lacks will be named
    examples = registered(folder, **keys, image_ext="png")
    assert [Path(x["file_name"]).name for x in examples] == ["b.png"]
    (folder / "maps/b.png").unlink()
    refused(folder, r"has the name of one in .*photos \(\.png\)", **keys, image_ext="png")
    Image.new("RGB", (4, 4)).save(folder / "photos/a.png")
    refused(folder, r"a\.jpg and .*a\.png have one name; .*, or give image_ext", **keys)


def test_what_is_missing_is_named_with_its_ending(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        write_map(folder, CORNER, f"{name}.png")
    registered(folder, labels="maps", classes=["ball", "chips"], image_ext="jpg")
    said = [record.getMessage() for record in caplog.records]
    assert any(f"2 of 3 images are missing in {folder}/photos (.jpg) and are left" in x for x in said)


def test_a_folder_of_folders_is_named(folder: Path) -> None:
    (folder / "maps/inside").mkdir(parents=True)
    refused(folder, r"no \.png files in .*maps \(it holds 1 folder alone\)",
            labels="maps", classes=["ball"])  # fmt: skip


def test_label_suffix(folder: Path) -> None:
    write_map(folder, CORNER, "a_mask.png")
    write_map(folder, CORNER, "a_depth.png")
    keys = {"labels": "maps", "classes": ["ball", "chips"]}
    assert truth(folder, **keys, label_suffix="_mask") == CORNER
    (folder / "maps/a_depth.png").unlink()
    refused(folder, "label_suffix: '_mask' would fit 'a_mask'", **keys)


def test_images_and_masks_in_one_folder(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "photos/a.png")
    Image.fromarray(np.array(CORNER, np.uint8)).save(folder / "photos/a_mask.png")
    keys = {"labels": "photos", "image_ext": "png", "label_suffix": "_mask"}
    assert truth(folder, **keys, classes=["ball", "chips"]) == CORNER
    (folder / "photos/a.png").unlink()
    del keys["image_ext"]  # a.jpg is the image, and the label map beside it is none
    assert truth(folder, **keys, classes=["ball", "chips"]) == CORNER


@pytest.mark.parametrize("ending", ["jpg", ".JPEG", "webp"])
def test_lossy_label_maps_are_refused(folder: Path, ending: str) -> None:
    write_map(folder, MAP)
    refused(
        folder, f"label_ext '{ending.lstrip('.')}' loses what is written into it",
        labels="maps", classes=["ball"], label_ext=ending,
    )  # fmt: skip


def test_lossy_label_maps_under_another_name(folder: Path) -> None:
    write_map(folder, CORNER)
    Image.fromarray(np.array(CORNER, np.uint8)).save(folder / "maps/a.png", format="JPEG")
    keys = {"labels": "maps", "classes": ["ball", "chips"]}
    refused(folder, r"a\.png is JPEG, which changes labels", **keys)
    (folder / "maps/a.png").unlink()
    Image.fromarray(np.array(CORNER, np.uint8)).save(folder / "maps/a.tif", compression="jpeg")
    refused(folder, r"a\.tif is TIFF with jpeg compression", **keys, label_ext="tif")


def test_json_as_labels_is_named(folder: Path) -> None:
    classes = ["ball", "chips"]
    write_coco(folder, (3, [square(0, 0, 2)]))
    refused(folder, "but a COCO instances file; the key that reads it is coco_json",
            labels="instances.json", classes=classes)  # fmt: skip
    write_coco(folder, annotations=[{"segments_info": []}])
    refused(folder, "but a COCO panoptic file; the key that reads it is panoptic_json",
            labels="instances.json", classes=classes)  # fmt: skip
    (folder / "instances.json").write_text(json.dumps({"shapes": [], "imagePath": "a.jpg"}))
    refused(folder, "but a labelme file of one image", labels="instances.json", classes=classes)
    (folder / "instances.json").write_text("{")
    refused(folder, r"instances\.json cannot be read", labels="instances.json", classes=classes)
    write_coco(folder, (3, [square(0, 0, 2)]))
    refused(folder, "is a COCO instances file; the key that reads it is coco_json",
            labels="photos", panoptic_json="instances.json")  # fmt: skip
