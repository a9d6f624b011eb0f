"""The files of a prediction: values by hand, no two in one place, none half written."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ovseg.colours import palette
from ovseg.errors import UserError
from ovseg.prediction import Prediction
from ovseg.results.files import ResultPaths, plan_outputs, save_result
from ovseg.utils.images import read_image

IMAGE = np.zeros((2, 3, 3), np.uint8)


def prediction(n_classes: int = 3) -> Prediction:
    labels = np.array([[0, 0, -1], [2, 0, 2]], np.int32)
    scores = np.array([[0.5, 0.25, 0.0], [0.1, 0.75, 0.3]], np.float32)
    return Prediction(labels, scores, [f"word {i}" for i in range(n_classes)], IMAGE)


def test_description_by_hand() -> None:
    about = prediction().describe()
    assert (about["width"], about["height"]) == (3, 2)
    first, second, third = about["classes"]
    assert first == {
        "label": 0, "name": "word 0", "pixels": 3, "share": 0.5, "mean_score": 0.5,
        "color": "#ff6348",
    }  # fmt: skip
    assert (second["pixels"], second["share"], second["mean_score"]) == (0, 0.0, None)
    assert (third["pixels"], third["share"], third["mean_score"]) == (2, 0.333333, 0.2)
    assert about["no_class"] == {"label": 255, "pixels": 1, "share": 0.166667}


@pytest.mark.parametrize(("n_classes", "none"), [(3, 255), (254, 255), (255, 65535), (847, 65535)])
def test_label_map(n_classes: int, none: int, tmp_path: Path) -> None:
    paths = ResultPaths.beside(tmp_path / "new" / "a_overlay.png", "a")
    save_result(prediction(n_classes), paths, {"file": "a.png"})
    with Image.open(tmp_path / "new" / "a_labels.png") as file:
        np.testing.assert_array_equal(np.asarray(file), [[0, 0, none], [2, 0, 2]])
        if none == 255:
            colours = np.asarray(file.convert("RGB"))
            np.testing.assert_array_equal(colours[1, 0], palette(n_classes)[2])
            np.testing.assert_array_equal(colours[0, 2], 0)
    summary = json.loads((tmp_path / "new" / "a.json").read_text("utf-8"))
    assert summary["file"] == "a.png"
    assert summary["no_class"]["label"] == none
    assert summary["label_map"] == "a_labels.png"
    assert len(summary["classes"]) == n_classes
    names = {"a_overlay.png", "a_labels.png", "a.json"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names


def test_shown_in_short() -> None:
    found = prediction()
    assert repr(found) == "<Prediction 3 x 2: word 0 50.0%, word 2 33.3%>"
    found.labels[:] = -1
    assert repr(found) == "<Prediction 3 x 2: nothing found>"
    with Image.open(io.BytesIO(found._repr_png_())) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(found.overlay()))


def test_an_unknown_palette_is_told() -> None:
    found = prediction()
    found.palette = "colourblind"
    with pytest.raises(UserError, match="palette 'colourblind' is not known; choose from default"):
        found.overlay()


def test_the_home_folder_is_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = prediction().save("~/results", "a")
    assert paths.summary == tmp_path / "results" / "a.json"
    assert read_image("~/results/a_overlay.png").shape[2] == 3


@pytest.mark.parametrize("name", ["", "na/me", "/name", "na\\me"])
def test_a_name_without_a_folder_is_wanted(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^name .* is no file's name; give a text without /"):
        prediction().save(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ResultPaths.beside(tmp_path / "a_overlay.png", "a")
    save_result(prediction(), paths, {"run": 1})

    def half(self: Image.Image, path: Path) -> None:
        path.write_text("half an image")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(KeyboardInterrupt):
        save_result(prediction(), paths, {"run": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.json", "a_labels.png", "a_overlay.png",
    ]  # fmt: skip
    assert json.loads(paths.summary.read_text())["run"] == 1
    Image.open(paths.overlay).load()


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    paths = ResultPaths.beside(tmp_path / "file" / "a_overlay.png", "a")
    with pytest.raises(UserError, match=r"cannot write.*--output"):
        save_result(prediction(), paths, {})
    with pytest.raises(UserError, match=r"--output .*cannot be made"):
        plan_outputs([Path("a.png")], str(tmp_path / "file" / "pred"))


def test_results_share_no_file(tmp_path: Path) -> None:
    inputs = [Path(name) for name in ("x/a.jpg", "x/a.png", "y/A.jpeg", "x/a_2.png")]
    planned = plan_outputs(inputs, str(tmp_path / "pred"))
    assert [paths.overlay.name for paths in planned] == [
        "a_overlay.jpg", "a_2_overlay.png", "A_3_overlay.jpg", "a_2_2_overlay.png",
    ]  # fmt: skip
    assert (tmp_path / "pred").is_dir()


def test_inputs_are_not_overwritten(tmp_path: Path) -> None:
    inputs = [tmp_path / "a.png", tmp_path / "a_labels.png"]
    planned = plan_outputs(inputs, str(tmp_path))
    assert planned[0].labels == tmp_path / "a_2_labels.png"
    with pytest.raises(UserError, match="overwrite the input"):
        plan_outputs(inputs[:1], str(tmp_path / "a.png"))


def test_output_as_a_file(tmp_path: Path) -> None:
    (paths,) = plan_outputs([Path("a.jpg")], str(tmp_path / "new" / "out.png"))
    assert paths.all() == tuple(
        tmp_path / "new" / name for name in ("out.png", "out_labels.png", "out.json")
    )
    with pytest.raises(UserError, match="2 images; give a folder"):
        plan_outputs([Path("a.jpg"), Path("b.jpg")], str(tmp_path / "out.png"))
    (tmp_path / "folder.png").mkdir()
    (paths,) = plan_outputs([Path("a.jpg")], str(tmp_path / "folder.png"))
    assert paths.overlay == tmp_path / "folder.png" / "a_overlay.jpg"


@pytest.mark.parametrize("suffix", [".heic", ".AVIF"])
def test_output_that_pillow_cannot_write(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.init()
    for name in ("HEIF", "AVIF"):  # whatever the installed Pillow and its plugins write
        monkeypatch.delitem(Image.SAVE, name, raising=False)
    with pytest.raises(UserError, match=rf"\{suffix} files cannot be written here; give .png"):
        plan_outputs([Path("a.png")], str(tmp_path / "out" / f"x{suffix}"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("band", [1, 50, 10_000])
def test_pixels_are_counted_band_by_band(band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, (30, 20)).astype(np.int32)
    scores = rng.random((30, 20)).astype(np.float32)
    image = np.zeros((30, 20, 3), np.uint8)
    monkeypatch.setattr("ovseg.utils.label_maps._BAND", band)
    classes = Prediction(labels, scores, ["a", "b", "c"], image).describe()["classes"]
    for label, entry in enumerate(classes):
        assert entry["pixels"] == (labels == label).sum()
        mean = scores[labels == label].astype(float).mean()
        assert entry["mean_score"] == pytest.approx(mean, abs=1e-6)


def test_masks_and_areas_by_hand() -> None:
    masks = prediction().masks
    assert masks.dtype == bool
    assert masks.astype(int).tolist() == [
        [[1, 1, 0], [0, 1, 0]],
        [[0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [1, 0, 1]],
    ]
    assert prediction().areas() == [3, 0, 2]


def test_overlay_and_json_are_those_of_the_files(tmp_path: Path) -> None:
    paths = prediction().save(tmp_path / "new", "a")
    assert [path.name for path in paths.all()] == ["a_overlay.png", "a_labels.png", "a.json"]
    with Image.open(paths.overlay) as file:
        np.testing.assert_array_equal(np.asarray(file), np.asarray(prediction().overlay()))
    written = json.loads(paths.summary.read_text("utf-8"))
    assert json.loads(prediction().to_json()).items() <= written.items()


def test_coco_is_read_by_pycocotools(tmp_path: Path) -> None:
    document = prediction().to_coco("a.jpg", image_id=7)
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(document))
    coco = COCO(str(file))
    assert coco.loadImgs(7)[0]["file_name"] == "a.jpg"
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == [
        "word 0", "word 1", "word 2",
    ]  # fmt: skip
    found = coco.loadAnns(coco.getAnnIds(imgIds=7))
    assert [annotation["category_id"] for annotation in found] == [1, 3]  # word 1 is not there
    for annotation, label in zip(found, (0, 2), strict=True):
        mask = prediction().labels == label
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum()
    assert found[0]["bbox"] == [0, 0, 2, 2]
    assert found[0]["score"] == 0.5
    assert found[1]["score"] == 0.2


def test_polygons_outline_the_regions() -> None:
    labels = np.full((40, 60), -1, np.int32)
    labels[5:25, 10:50] = 1
    labels[30:38, 3:20] = 1
    one = Prediction(labels, (labels >= 0).astype(np.float32), ["a", "b"], np.zeros((40, 60, 3)))
    (annotation,) = one.to_coco(polygons=True)["annotations"]
    corners = [
        {tuple(corner) for corner in np.reshape(polygon, (-1, 2)).tolist()}
        for polygon in annotation["segmentation"]
    ]
    # along the edges of the pixels
    assert {(10, 5), (10, 25), (50, 5), (50, 25)} in corners
    assert {(3, 30), (3, 38), (20, 30), (20, 38)} in corners
    assert len(corners) == 2


def test_polygons_keep_holes() -> None:
    labels = np.full((40, 60), -1, np.int32)
    labels[5:35, 10:50] = 0
    labels[15:25, 20:40] = -1
    one = Prediction(labels, (labels >= 0).astype(np.float32), ["a"], np.zeros((40, 60, 3)))
    content = one.to_coco("a.jpg", polygons=True)
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    mask = coco.annToMask(content["annotations"][0])
    np.testing.assert_array_equal(mask, labels == 0)


def test_supervision_gets_a_mask_a_class() -> None:
    supervision = pytest.importorskip("supervision")
    detections = prediction().to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert detections.class_id.tolist() == [0, 2]
    assert detections.data["class_name"].tolist() == ["word 0", "word 2"]
    np.testing.assert_array_equal(detections.mask, prediction().masks[[0, 2]])
    np.testing.assert_allclose(detections.confidence, [0.5, 0.2])
    assert detections.xyxy.tolist() == [[0, 0, 2, 2], [0, 1, 3, 2]]
    nothing = Prediction(np.full((2, 3), -1, np.int32), np.zeros((2, 3), np.float32), ["a"], IMAGE)
    assert len(nothing.to_supervision()) == 0
    assert nothing.to_coco()["annotations"] == []


def test_supervision_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        prediction().to_supervision()


def test_frames_of_a_video_have_the_same_legend() -> None:
    rng = np.random.default_rng(0)
    names = ["cat", "a word that is longer", "dog"]
    drawn = []
    for classes in ([0, 1], [2, 2], [-1, 0]):
        labels = rng.choice(classes, (7, 9)).astype(np.int32).repeat(100, 0).repeat(100, 1)
        one = Prediction(labels, np.ones(labels.shape), names, np.zeros((700, 900, 3), np.uint8))
        drawn.append(np.asarray(one.overlay(steady=True)))
        assert not np.array_equal(np.asarray(one.overlay())[:, 900:], drawn[-1][:, 900:])
    for picture in drawn[1:]:
        assert picture.shape == drawn[0].shape
        np.testing.assert_array_equal(picture[:, 900:], drawn[0][:, 900:])
    many = Prediction(labels, one.scores, [f"word {i}" for i in range(100)], one.image)
    assert many.overlay(steady=True).size == (900, 700)  # no legend
