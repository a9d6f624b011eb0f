"""Segments and instances as results: by hand, from the model, and drawn."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from ovseg.errors import UserError
from ovseg.instance_drawing import draw_segments, numbered_names, shades
from ovseg.modeling.panoptic import instances, panoptic_segments
from ovseg.prediction import Prediction
from ovseg.predictor import Predictor
from ovseg.results.files import ResultPaths, plan_outputs, save_result
from ovseg.segments import InstancePrediction, PanopticPrediction, Segment
from ovseg.visualizer import palette
from ovseg.vocabulary import Vocabulary

NAMES = ["cat", "dog", "grass"]
IMAGE = np.full((2, 4, 3), 100, np.uint8)


def panoptic_prediction() -> PanopticPrediction:
    """Two cats on grass, one pixel nobody's."""
    ids = np.array([[1, 1, 2, 0], [3, 3, 3, 3]], np.int32)
    segments = [
        Segment(1, 0, "cat", True, 0.5),
        Segment(2, 0, "cat", True, 0.25),
        Segment(3, 2, "grass", False, 1.0),
    ]
    return PanopticPrediction(ids, segments, NAMES, IMAGE)


def instance_prediction() -> InstancePrediction:
    """A dog, and behind it a cat."""
    masks = np.zeros((2, 2, 4), bool)
    masks[0, :, 1:3] = True
    masks[1, 1] = True
    return InstancePrediction(
        masks, np.array([1, 0]), np.array([0.75, 0.5], np.float32), NAMES, IMAGE
    )


def test_segments_by_hand() -> None:
    found = panoptic_prediction()
    assert found.masks.dtype == bool
    assert found.masks.sum(axis=(1, 2)).tolist() == [2, 1, 4]
    described = found.describe()
    assert described[1] == {
        "id": 2,
        "label": 0,
        "name": "cat",
        "is_thing": True,
        "score": 0.25,
        "pixels": 1,
        "share": 0.125,
        "box": [2.0, 0.0, 1.0, 1.0],
    }
    assert [entry["name"] for entry in described] == ["cat", "cat", "grass"]
    json.dumps(described)


def test_ids_have_the_colours_of_coco() -> None:
    ids = np.array([[0, 1, 255], [256, 257, 70000]], np.int32)
    picture = np.asarray(PanopticPrediction(ids, [], NAMES, IMAGE).id_image()).astype(int)
    assert picture.shape == (2, 3, 3)
    assert (picture @ [1, 256, 65536]).tolist() == ids.tolist()
    assert picture[1, 2].tolist() == [70000 % 256, 70000 // 256 % 256, 1]


def test_instances_by_hand() -> None:
    found = instance_prediction()
    assert len(found) == 2
    first, second = found.describe()
    assert (first["name"], first["score"], first["pixels"]) == ("dog", 0.75, 4)
    assert first["box"] == [1.0, 0.0, 2.0, 2.0]
    assert (second["name"], second["label"], second["box"]) == ("cat", 0, [0.0, 1.0, 4.0, 1.0])
    np.testing.assert_array_equal(coco_mask.decode(second["segmentation"]), found.masks[1])
    assert [entry["name"] for entry in found.at_least(0.6).describe()] == ["dog"]
    assert found.to_coco("a.jpg", 7)["annotations"][1]["category_id"] == 1
    assert found.to_coco("a.jpg", 7)["images"][0]["file_name"] == "a.jpg"


def test_supervision_gets_a_mask_an_instance() -> None:
    pytest.importorskip("supervision")
    found = instance_prediction().to_supervision()
    assert found.class_id.tolist() == [1, 0]
    assert found.xyxy.tolist() == [[1, 0, 3, 2], [0, 1, 4, 2]]
    assert found.confidence.tolist() == [0.75, 0.5]
    assert found.data["class_name"].tolist() == ["dog", "cat"]


def test_names_are_numbered_where_there_are_several() -> None:
    assert numbered_names([0, 2, 0, 1, 0], NAMES) == ["cat 1", "grass", "cat 2", "dog", "cat 3"]
    assert numbered_names([], NAMES) == []


def test_shades_of_a_class_are_alike_and_apart() -> None:
    colours = shades([2] * 8 + [0], palette(3)).astype(int)
    np.testing.assert_array_equal(colours[0], palette(3)[2])
    np.testing.assert_array_equal(colours[8], palette(3)[0])
    distance = np.abs(colours[:8, None] - colours[None, :8]).max(axis=-1)
    assert distance[~np.eye(8, dtype=bool)].min() > 8
    assert shades([], palette(3)).shape == (0, 3)


def shown(overlay: Image.Image, colour: np.ndarray) -> bool:
    """Whether a legend has a swatch of this colour."""
    return bool((np.asarray(overlay)[:, 640:] == colour).all(axis=-1).any())


def test_overlays_show_every_segment_in_its_shade() -> None:
    overlay = panoptic_prediction().overlay()
    for colour in shades([0, 0, 2], palette(3)):
        assert shown(overlay, colour)
    assert not shown(overlay, palette(3)[1])


def test_segments_have_the_palette_that_is_asked_for() -> None:
    usual, other = palette(3), palette(3, "colorblind")
    for found in (panoptic_prediction(), instance_prediction()):
        found.palette = "colorblind"
        assert shown(found.overlay(), other[0])
        assert not shown(found.overlay(), usual[0])
    assert instance_prediction().at_least(0.6).palette == "default"
    assert found.at_least(0.6).palette == "colorblind"


def test_notebooks_show_the_overlay() -> None:
    for found in (panoptic_prediction(), instance_prediction()):
        with Image.open(io.BytesIO(found._repr_png_())) as image:
            np.testing.assert_array_equal(np.asarray(image), np.asarray(found.overlay()))
    assert repr(panoptic_prediction()) == "<PanopticPrediction 4 x 2: cat x 2, grass x 1>"
    assert repr(instance_prediction()) == "<InstancePrediction 4 x 2: dog x 1, cat x 1>"
    assert repr(instance_prediction().at_least(1)) == "<InstancePrediction 4 x 2: nothing found>"


def test_the_best_instance_lies_on_top() -> None:
    found = instance_prediction()
    image = np.full((800, 800, 3), 100, np.uint8)
    masks = np.zeros((3, 800, 800), bool)
    masks[0, 200:600, 200:600] = True
    masks[1, 100:700, 100:700] = True
    masks[2, 300:400, 300:400] = True  # nothing is seen of it
    scores = np.array([0.9, 0.8, 0.1], np.float32)
    found = InstancePrediction(masks, np.array([1, 0, 2]), scores, NAMES, image)
    overlay = np.asarray(found.overlay())
    colours = shades([1, 0], palette(3))
    half = np.rint((colours.astype(int) + 100) / 2)
    tinted = [(np.abs(overlay[:, :800] - colour) <= 1).all(axis=-1) for colour in half]
    # but for outlines and names
    assert 0.9 * 160_000 < tinted[0][200:600, 200:600].sum() == tinted[0].sum()
    assert tinted[1].sum() > 0.9 * 200_000
    assert not tinted[1][200:600, 200:600].any()
    assert (overlay[50, 50] == 100).all()
    legend = overlay[:, 800:]
    assert not (legend == palette(3)[2]).all(axis=-1).any()


def test_nothing_to_draw() -> None:
    nothing = draw_segments(IMAGE, np.full((2, 4), -1), [], NAMES)
    assert nothing.shape[1] > 640


def test_files_of_segments(tmp_path: Path) -> None:
    labels = np.array([[0, 0, 0, -1], [2, 2, 2, 2]], np.int32)
    prediction = Prediction(labels, np.ones((2, 4), np.float32), NAMES, IMAGE)
    paths = ResultPaths.beside(tmp_path / "a_overlay.png", "a")
    found = panoptic_prediction()
    save_result(prediction, paths, {}, panoptic=found, instances=instance_prediction())
    assert {path.name for path in tmp_path.iterdir()} == {
        "a_overlay.png", "a_labels.png", "a_panoptic.png", "a.json"
    }  # fmt: skip
    with Image.open(tmp_path / "a_panoptic.png") as file:
        np.testing.assert_array_equal(np.asarray(file)[..., 0], found.ids)
    with Image.open(tmp_path / "a_overlay.png") as file:
        np.testing.assert_array_equal(np.asarray(file), np.asarray(found.overlay()))
    written = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert written["panoptic"] == "a_panoptic.png"
    assert written["segments"] == found.describe()
    assert written["instances"] == instance_prediction().describe()
    assert len(written["classes"]) == 3


def test_an_input_named_like_a_result_is_kept(tmp_path: Path) -> None:
    inputs = [tmp_path / "a.png", tmp_path / "a_panoptic.png"]
    assert plan_outputs(inputs, str(tmp_path))[0].panoptic == tmp_path / "a_2_panoptic.png"


@pytest.fixture(scope="module")
def predictor(small_config, small_model) -> Predictor:
    opts = (
        "INPUT.MIN_SIZE_TEST", "60", "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD", "0.2",
        "TEST.DETECTIONS_PER_IMAGE", "5",
    )  # fmt: skip
    return Predictor(small_config(*opts), small_model(*opts))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((90, 66)))


def test_an_encoded_picture_has_segments_and_instances(
    predictor: Predictor, picture: np.ndarray
) -> None:
    encoded = predictor.encode(picture)
    names = {"animal": ["cat", "dog"], "grass": "grass"}
    model, words = predictor.model, Vocabulary.of([["cat", "dog"], "grass"])
    with torch.inference_mode():
        classes = model.classify(encoded.regions, model.text(words))
    for things, given in ((frozenset({0, 1}), None), (frozenset({0}), ["animal"])):
        found = encoded.panoptic(names, given)
        ids, segments = panoptic_segments(
            classes, encoded.regions.masks, words, things, (66, 90), 0.0, 0.2
        )
        np.testing.assert_array_equal(found.ids, ids.numpy())
        assert found.class_names == ["animal", "grass"]
        assert [segment.is_thing for segment in found.segments] == [
            segment["isthing"] for segment in segments
        ]
        assert found.image is encoded.image
        objects = encoded.instances(names, given)
        expected = instances(classes, encoded.regions.masks, words, things, (66, 90), 5)
        np.testing.assert_array_equal(objects.masks, expected.pred_masks.numpy())
        np.testing.assert_array_equal(objects.labels, expected.pred_classes.numpy())
    # thresholds of one's own
    assert encoded.panoptic(names, object_mask_threshold=1.0).segments == []
    all_of_it = encoded.panoptic(names, overlap_threshold=0.0)
    assert len(all_of_it.segments) >= len(found.segments)
    assert len(encoded.instances(names, max_instances=1)) <= 1


def test_segments_follow_reject(predictor: Predictor, picture: np.ndarray) -> None:
    encoded, names = predictor.encode(picture), ["cat", "dog", "grass"]
    found = [encoded.panoptic(names, reject=strength) for strength in (0.0, 0.5, 1.0)]
    np.testing.assert_array_equal(found[0].ids, encoded.panoptic(names).ids)
    rejected = [int((each.ids == 0).sum()) for each in found]
    assert rejected[0] < rejected[2] == found[2].ids.size
    assert rejected[0] <= rejected[1]
    assert found[2].segments == []
    things = [encoded.instances(names, reject=strength) for strength in (0.0, 1.0)]
    np.testing.assert_array_equal(things[0].masks, encoded.instances(names).masks)
    assert not (things[1].scores > 0).any()
    with pytest.raises(UserError, match=r"reject 2 must be in 0\.\.1"):
        encoded.panoptic(names, reject=2)


def test_built_in_lists_know_their_stuff(predictor: Predictor, picture: np.ndarray) -> None:
    found = predictor.encode(picture).panoptic("stickerscenes")
    assert found.segments
    for segment in found.segments:
        # 126 seen things, then 18 kinds of stuff, then unseen things
        assert segment.is_thing == (not 126 <= segment.label < 144)


def test_mistakes_are_answered(predictor: Predictor, picture: np.ndarray) -> None:
    encoded = predictor.encode(picture)
    with pytest.raises(UserError, match="thing_classes: 'dgo' is none of the class names"):
        encoded.panoptic(["cat", "dog"], ["dgo"])
    with pytest.raises(UserError, match=r"overlap_threshold 1\.5 must lie in 0\.\.1"):
        encoded.panoptic(["cat"], overlap_threshold=1.5)
    with pytest.raises(UserError, match=r"object_mask_threshold -1 must lie in 0\.\.1"):
        encoded.panoptic(["cat"], object_mask_threshold=-1)
    with pytest.raises(UserError, match="max_instances 0 must be at least 1"):
        encoded.instances(["cat"], max_instances=0)


def test_several_views_have_no_segments(small_config, small_model, picture: np.ndarray) -> None:
    opts = ("TEST.SLIDING_WINDOW", "True", "TEST.SLIDING_TILE_SIZE", "64")
    opts += ("INPUT.MIN_SIZE_TEST", "96")
    predictor = Predictor(small_config(*opts), small_model(*opts))
    with pytest.raises(UserError, match="proposals of one view"):
        predictor.encode(picture).panoptic(["cat"])
