"""Each format is read back by an independent reader; runs of several images end in one file."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from ovseg.data.coco_masks import decode_polygons
from ovseg.errors import UserError
from ovseg.prediction import Prediction
from ovseg.results.files import ResultPaths, finish_results, is_done, plan_outputs, save_result
from ovseg.results.formats import FORMATS, read_formats
from ovseg.results.labelstudio import brush_rle
from ovseg.results.outlines import edge_polygons, polygons

MODEL = {"config": "some.yaml", "device": "cpu"}
NAMES = ["dog", "a/b: c", "not there", 'quoted "<x>"']


def blobs(seed: int, shape: tuple[int, int] = (60, 90), count: int = 4) -> Prediction:
    """Regions with holes, islands and single pixels."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), 3)
    labels = np.digitize(noise, np.quantile(noise, [0.3, 0.6, 0.9])) - 1
    labels[labels == 2] = 3  # the third class is not there
    labels[5, 7] = 1
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    scores = np.where(labels >= 0, rng.random(shape), 0).astype(np.float32)
    return Prediction(labels.astype(np.int32), scores, NAMES[:count], image)


def save_all(folder: Path, formats: tuple[str, ...], names: str = "ab") -> list[ResultPaths]:
    plan = plan_outputs([Path(f"in/{name}.jpg") for name in names], str(folder))
    for seed, paths in enumerate(plan):
        about = {"file": f"in/{names[seed]}.jpg", "model": MODEL}
        save_result(blobs(seed), paths, about, formats)
    finish_results(plan, formats)
    return plan


def test_names_of_formats() -> None:
    assert read_formats("html, COCO,html,json") == ("html", "coco")
    assert read_formats("json") == ()
    with pytest.raises(UserError, match="--save 'gif' is not known; choose from overlay, labels"):
        read_formats("overlay,gif")
    with pytest.raises(UserError, match="names nothing"):
        read_formats(" ,")


def test_masks_are_one_bit_each(tmp_path: Path) -> None:
    plan = save_all(tmp_path, ("masks",))
    folder = tmp_path / "masks" / "a"
    old = folder / "002_of_an_earlier_run.png"
    mine = folder / "notes.png"
    for file in (old, mine):
        Image.new("L", (2, 2)).save(file)
    save_result(blobs(0), plan[0], {}, ("masks",))
    assert {file.name for file in folder.iterdir()} == {
        "000_dog.png", "001_a_b_c.png", "003_quoted_x.png", "notes.png",
    }  # fmt: skip
    for label in (0, 1, 3):
        (file,) = folder.glob(f"{label:03d}_*")
        with Image.open(file) as image:
            assert image.mode == "1"
            np.testing.assert_array_equal(np.asarray(image), blobs(0).labels == label)
    assert json.loads(plan[0].summary.read_text("utf-8"))["masks"] == "masks/a"


def test_scores_in_half_precision(tmp_path: Path) -> None:
    save_all(tmp_path, ("scores",))
    with np.load(tmp_path / "scores" / "b.npz") as file:
        scores = file["scores"]
    assert scores.dtype == np.float16
    np.testing.assert_array_equal(scores, blobs(1).scores.astype(np.float16))


def test_coco_of_all_pictures(tmp_path: Path) -> None:
    save_all(tmp_path, ("coco",))
    coco = COCO(str(tmp_path / "coco.json"))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.jpg", "b.jpg"]
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == NAMES
    for seed, image in enumerate(coco.getImgIds()):
        labels = np.full(blobs(seed).labels.shape, -1)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image)):
            labels[coco.annToMask(annotation) > 0] = annotation["category_id"] - 1
        np.testing.assert_array_equal(labels, blobs(seed).labels)
    assert len(set(coco.getAnnIds())) == 6


def test_pictures_of_one_name_keep_their_folders(tmp_path: Path) -> None:
    plan = plan_outputs([Path("one/a.jpg"), Path("two/a.jpg")], str(tmp_path))
    for paths, file in zip(plan, ("one/a.jpg", "two/a.jpg"), strict=True):
        save_result(blobs(0), paths, {"file": file}, ("coco", "labelstudio"))
    finish_results(plan, ("coco", "labelstudio"))
    images = json.loads((tmp_path / "coco.json").read_text("utf-8"))["images"]
    assert [image["file_name"] for image in images] == ["one/a.jpg", "two/a.jpg"]
    tasks = json.loads((tmp_path / "labelstudio.json").read_text("utf-8"))
    assert [task["data"]["image"] for task in tasks] == ["one/a.jpg", "two/a.jpg"]


def test_names_that_are_taken_are_counted_up() -> None:
    names = ["1/a.jpg", "2/a.png", "3/a.jpg", "4/a_2.jpg", "5/A.jpg", "6/b.png", "7/a.jpg"]
    plan = plan_outputs([Path(name) for name in names], "out")
    assert [paths.name for paths in plan] == ["a", "a_2", "a_3", "a_2_2", "A_4", "b", "a_5"]
    # the files of all images have these names
    plan = plan_outputs([Path("coco.jpg"), Path("labelstudio.png")], "out")
    assert [paths.name for paths in plan] == ["coco_2", "labelstudio_2"]


def decoded(code: list[int]) -> list[int]:
    """The values of a bit stream of runs, read bit by bit as its JavaScript reader does."""
    bits = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total = read(32)
    value_bits = read(5) + 1
    widths = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run = read(1)
        length = read(widths[read(2)]) + 1
        if is_run:
            values += [read(value_bits)] * length
        else:
            values += [read(value_bits) for _ in range(length)]
    return values


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (60, 90), (300, 400)])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.0])
def test_brush_code_is_read_back(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(shape) < share
    rgba = np.array(decoded(brush_rle(mask))).reshape(*shape, 4)
    np.testing.assert_array_equal(rgba[..., 3], 255 * mask)


def test_brush_code_by_hand() -> None:
    # 8 values; 8 bits each; widths 3, 4, 8, 16; two runs of 4: 1 00 011 value
    bits = f"{8:032b}" + "00111" + "0010001101111111"
    bits += "10001111111111" + "10001100000000"
    bits += "0" * (-len(bits) % 8)
    expected = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert brush_rle(np.array([[True, False]])) == expected


def test_label_studio_tasks(tmp_path: Path) -> None:
    save_all(tmp_path, ("labelstudio",))
    tasks = json.loads((tmp_path / "labelstudio.json").read_text("utf-8"))
    assert [task["data"] for task in tasks] == [{"image": "a.jpg"}, {"image": "b.jpg"}]
    config = ElementTree.parse(tmp_path / "labelstudio.xml").getroot()
    brush, image = config.find("BrushLabels"), config.find("Image")
    assert brush is not None
    assert image is not None
    assert [label.get("value") for label in brush] == NAMES
    for seed, task in enumerate(tasks):
        (prediction,) = task["predictions"]
        labels = np.full((60, 90), -1)
        for result in prediction["result"]:
            assert (result["original_height"], result["original_width"]) == (60, 90)
            assert (result["from_name"], result["to_name"]) == (
                brush.get("name"),
                image.get("name"),
            )
            (name,) = result["value"]["brushlabels"]
            rgba = np.array(decoded(result["value"]["rle"])).reshape(60, 90, 4)
            labels[rgba[..., 3] > 127] = NAMES.index(name)
        np.testing.assert_array_equal(labels, blobs(seed).labels)


def drawn(lines: list[str], shape: tuple[int, int]) -> np.ndarray:
    """A label map of YOLO's lines."""
    labels = np.full(shape, -1, np.int32)
    for line in lines:
        label, *corners = line.split()
        points = np.array(corners, float).reshape(-1, 2) * (shape[1], shape[0])
        mask = np.zeros(shape, np.uint8)
        cv2.fillPoly(mask, [points.astype(np.int32)], 1)
        labels[mask > 0] = int(label)
    return labels


def test_yolo_regions_are_drawn_again(tmp_path: Path) -> None:
    save_all(tmp_path, ("yolo",))
    data = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text("utf-8"))
    assert data["names"] == dict(enumerate(NAMES))
    for seed, name in enumerate("ab"):
        text = (tmp_path / "yolo" / "labels" / f"{name}.txt").read_text("utf-8")
        labels = drawn(text.splitlines(), (60, 90))
        truth = blobs(seed).labels
        wrong = labels != truth
        # what is missing are straight lines of pixels
        assert wrong.mean() < 0.01
        assert (labels[wrong] != truth[wrong]).all()
        with Image.open(tmp_path / "yolo" / "images" / f"{name}.jpg") as image:
            assert image.size == (90, 60)


def test_yolo_is_read_by_supervision(tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    save_all(tmp_path, ("yolo",))
    folder = tmp_path / "yolo"
    data = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml"), force_masks=True
    )
    assert data.classes == NAMES
    assert len(data) == 2
    for path, _, detections in data:
        seed = "ab".index(Path(path).stem)
        for label in (0, 1, 3):
            mask = detections.mask[detections.class_id == label].any(axis=0)
            overlap = (mask & (blobs(seed).labels == label)).sum()
            assert overlap / (mask | (blobs(seed).labels == label)).sum() > 0.97


def test_polygons_keep_holes() -> None:
    mask = np.zeros((30, 40), bool)
    mask[4:26, 5:35] = True
    mask[8:12, 10:15] = mask[16:22, 20:30] = False
    mask[18:20, 23:27] = True  # an island in a hole
    mask[1, 1:9] = True  # a straight line has no area
    found = polygons(mask)
    assert len(found) == 2
    again = np.zeros(mask.shape, np.uint8)
    for polygon in found:
        cv2.fillPoly(again, [polygon], 1)
    mask[1, 1:9] = False
    np.testing.assert_array_equal(again, mask)


@pytest.mark.parametrize("seed", range(12))
def test_edge_polygons_give_the_mask_again(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(1, 60, 2))
    mask = generator.random((height, width)) > 0.6
    if seed % 2:  # blobs with holes
        mask = cv2.blur(generator.random((height, width)), (5, 5)) > 0.5
    corners = [polygon.ravel().tolist() for polygon in edge_polygons(mask)]
    again = decode_polygons(corners, height, width) if corners else np.zeros_like(mask)
    np.testing.assert_array_equal(again, mask)


def test_done_for_these_words_and_this_model_alone(tmp_path: Path) -> None:
    formats = ("overlay", "masks", "html")
    (paths,) = save_all(tmp_path, formats, "a")
    assert is_done(paths, formats, NAMES, "in/a.jpg", {**MODEL, "device": "cuda"})
    assert not is_done(paths, (*formats, "coco"), NAMES, "in/a.jpg", MODEL)
    assert not is_done(paths, formats, NAMES[::-1], "in/a.jpg", MODEL)
    assert not is_done(paths, formats, NAMES, "other/a.jpg", MODEL)
    assert not is_done(paths, formats, NAMES, "in/a.jpg", {"config": "other.yaml"})
    # a later run of other formats leaves the files of these, which may be of other words
    save_all(tmp_path, ("coco",), "a")
    assert is_done(paths, ("coco",), NAMES, "in/a.jpg", MODEL)
    assert not is_done(paths, formats, NAMES, "in/a.jpg", MODEL)
    paths.summary.write_text("[]")
    assert not is_done(paths, formats, NAMES, "in/a.jpg", MODEL)
    paths.summary.unlink()
    assert not is_done(paths, formats, NAMES, "in/a.jpg", MODEL)


def test_no_input_is_overwritten_by_a_part(tmp_path: Path) -> None:
    inputs = [tmp_path / "yolo" / "images" / "a.jpg", tmp_path / "b.png"]
    first, second = plan_outputs(inputs, str(tmp_path))
    assert (first.name, second.name) == ("a_2", "b")
    for format in FORMATS.values():
        assert not {path.resolve() for path in format.paths(first)} & set(inputs)


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "masks").write_text("in the way")
    (paths,) = plan_outputs([Path("a.jpg")], str(tmp_path))
    with pytest.raises(UserError, match="cannot write results"):
        save_result(blobs(0), paths, {}, ("masks",))
    assert not paths.summary.exists()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match=r"--output .* cannot be written to"):
        plan_outputs([Path("a.jpg")], str(tmp_path))
