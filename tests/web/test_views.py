"""What is shown of a prediction, on images that can be checked by eye."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from web_samples import FLAMINGO

from ovseg.prediction import Prediction, ProposalScores
from ovseg.predictor import Predictor
from ovseg.visualizer import palette
from ovseg.web.views import (
    area_colours,
    area_rows,
    coloured_regions,
    proposal_cards,
    write_files,
)

NAMES = ["left", "absent", "right"]


def halves(height: int = 20, width: int = 40) -> Prediction:
    """Left quarter "left", right half "right", no class between them."""
    labels = np.full((height, width), -1, np.int32)
    labels[:, : width // 4] = 0
    labels[:, width // 2 :] = 2
    image = np.full((height, width, 3), 128, np.uint8)
    return Prediction(labels, np.where(labels < 0, 0, 0.5).astype(np.float32), NAMES, image)


def hex_of(index: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*palette(3)[index].tolist())


def test_regions_are_opaque_at_their_outlines() -> None:
    regions = coloured_regions(halves(), 0.25)
    assert [name for _, name in regions.masks] == ["right", "left"]  # the largest first
    assert regions.colours == {"right": hex_of(2), "left": hex_of(0)}
    right, left = (mask for mask, _ in regions.masks)
    row = [1, *[0.25] * 19]
    np.testing.assert_array_equal(right[10], [0] * 20 + row)
    # where the image ends there is no outline
    np.testing.assert_array_equal(left[0], [0.25] * 9 + [1] + [0] * 30)
    assert right.dtype == np.float32
    solid = coloured_regions(halves(), 1.0).masks[0][0]
    np.testing.assert_array_equal(solid, halves().labels == 2)


def test_regions_of_large_pictures_are_reduced() -> None:
    regions = coloured_regions(halves(500, 4096), 0.5)
    assert regions.image.shape == (125, 1024, 3)
    assert [mask.shape for mask, _ in regions.masks] == [(125, 1024)] * 2
    assert (regions.masks[0][0] > 0).mean() == pytest.approx(0.5, abs=0.002)


def test_areas_as_rows() -> None:
    assert area_rows(halves()) == [
        ["right", "50.0 %", "400", "0.50"],
        ["left", "25.0 %", "200", "0.50"],
        ["absent", "not found", "", ""],
        ["(no class)", "25.0 %", "200", ""],
    ]
    assert area_colours(halves()) == [hex_of(2), hex_of(0), "", ""]
    everywhere = halves()
    everywhere.labels[everywhere.labels < 0] = 0
    assert len(area_rows(everywhere)) == len(area_colours(everywhere)) == 3


def test_cards_have_the_best_classes_of_both_branches() -> None:
    masks = np.zeros((3, 10, 20), np.float32)
    masks[0, :, :5] = 0.9
    masks[1, :, 5:] = 0.6
    masks[2] = 0.1
    maskformer = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.1], [0, 0, 0]], np.float32)
    clip = np.array([[0.6, 0.3, 0.1], [np.nan] * 3, [np.nan] * 3], np.float32)
    image = np.full((10, 20, 3), (200, 10, 10), np.uint8)
    cards = proposal_cards(ProposalScores(masks, maskformer, clip), image, NAMES, 0.5)
    assert [card.caption for card in cards] == ["1: 75.0 %", "0: 25.0 %"]
    assert cards[1].best == [
        ["1", "absent", "0.700", "left", "0.600"],
        ["2", "right", "0.200", "absent", "0.300"],
        ["3", "left", "0.100", "right", "0.100"],
    ]
    assert [row[3:] for row in cards[0].best] == [["–", ""]] * 3
    # the image keeps its colour inside of the mask alone
    image = cards[0].image
    np.testing.assert_array_equal(image[5, 15], [200, 10, 10])
    assert len(set(image[5, 1].tolist())) == 1
    (card,) = proposal_cards(ProposalScores(masks[:1], None, clip[:1]), image, NAMES, 0.5)
    assert [row[1] for row in card.best] == ["–"] * 3


def test_cards_show_five_of_many_classes() -> None:
    probs = np.linspace(0, 1, 9, dtype=np.float32)[None]
    scores = ProposalScores(np.ones((1, 4, 4), np.float32), probs, probs)
    names = [f"class {place}" for place in range(9)]
    (card,) = proposal_cards(scores, np.zeros((4, 4, 3), np.uint8), names, 0.5)
    assert [row[1] for row in card.best] == [f"class {place}" for place in (8, 7, 6, 5, 4)]


def test_files_hold_the_prediction(tmp_path: Path, embedded: Predictor) -> None:
    prediction = embedded(FLAMINGO, ["flamingo", "forest", "gravel", "mouse"])
    about = {"file": "flamingo.jpg", "ensemble_weight": 0.5}
    paths = write_files(prediction, tmp_path, "flamingo", 0.3, about)
    assert [path.name for path in paths] == [
        "flamingo_overlay.png", "flamingo_labels.png", "flamingo.json", "flamingo_coco.json"
    ]  # fmt: skip
    overlay, labels, summary, coco = paths
    np.testing.assert_array_equal(np.asarray(Image.open(labels)), prediction.labels)
    np.testing.assert_array_equal(
        np.asarray(Image.open(overlay)), np.asarray(prediction.overlay(opacity=0.3))
    )
    content = json.loads(summary.read_text("utf-8"))
    assert content.items() >= about.items()
    assert [entry["pixels"] for entry in content["classes"]] == prediction.areas()
    instances = json.loads(coco.read_text("utf-8"))
    assert instances["images"][0]["file_name"] == "flamingo.jpg"
    for annotation in instances["annotations"]:
        np.testing.assert_array_equal(
            coco_mask.decode(annotation["segmentation"]),
            prediction.labels == annotation["category_id"] - 1,
        )
