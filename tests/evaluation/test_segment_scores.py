"""Panoptic quality and average precision: cases by hand, and plain loops over random segments."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from PIL import Image

from ovseg.data.segment_maps import TrueSegments
from ovseg.evaluation import SemSegEvaluator, segments
from ovseg.evaluation.segments import SegmentScores, check_panoptic_quality

pytest.importorskip("hotcoco")

NAMES = ["cat", "dog", "grass", "sky"]
CAT, DOG, GRASS, SKY = range(4)
THINGS = (CAT, DOG)
GROUPS = {"seen": [CAT], "unseen": [DOG], "stuff": [GRASS, SKY]}


def found_of(ids: np.ndarray, labels: dict[int, int]) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """A model's ``panoptic_seg``."""
    return torch.from_numpy(ids.astype(np.int32)), [
        {"id": number, "category_id": label, "isthing": label in THINGS, "score": 1.0}
        for number, label in labels.items()
    ]


def scored(
    monkeypatch: pytest.MonkeyPatch,
    images: list[tuple[TrueSegments, dict[str, Any]]],
    panoptic: bool = True,
    groups: dict[str, list[int]] | None = None,
) -> dict[str, float]:
    """The figures of images whose ground truth is not in files."""
    monkeypatch.setattr(segments, "read_segments", lambda example, things, ignored: example)
    scores = SegmentScores(NAMES, THINGS, 255, groups or {})
    scores.images = [scores.look(truth, output) for truth, output in images]
    (figures,) = scores.evaluate(panoptic, not panoptic).values()
    return figures


def true(rows: list[str], labels: dict[int, int], crowds: tuple[int, ...] = ()) -> TrueSegments:
    ids = np.array([[int(pixel) for pixel in row] for row in rows], np.int32)
    return TrueSegments(ids, labels, frozenset(crowds))


def test_panoptic_quality_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = true(["1122", "1122", "3333", "3300"], {1: CAT, 2: CAT, 3: GRASS})
    # the first cat has 4 of 5 pixels, the second is missed, a dog is made up; the grass is whole
    # and goes on where nothing counts
    found = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [1, 3, 3, 3], [3, 3, 3, 3]])
    output = {"panoptic_seg": found_of(found, {1: CAT, 2: DOG, 3: GRASS})}
    figures = scored(monkeypatch, [(truth, output)], groups=GROUPS)
    cat, dog, grass = 0.8 / 1.5, 0.0, 5 / 6
    expected = {
        "PQ": 100 * (cat + dog + grass) / 3,
        "SQ": 100 * (0.8 + 0 + 5 / 6) / 3,
        "RQ": 100 * (1 / 1.5 + 0 + 1) / 3,
        "PQ_th": 100 * (cat + dog) / 2,
        "PQ_st": 100 * grass,
        "PQ_seen": 100 * cat,
        "PQ_unseen": 0.0,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_what_does_not_exist_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = true(["11", "11"], {1: CAT})
    figures = scored(monkeypatch, [(truth, {"panoptic_seg": found_of(truth.ids, truth.labels)})])
    assert figures["PQ"] == figures["PQ_th"] == 100
    assert math.isnan(figures["PQ_st"])
    nothing = scored(monkeypatch, [])
    assert all(math.isnan(value) for value in nothing.values())


def slow_panoptic_quality(
    images: list[tuple[TrueSegments, np.ndarray, dict[int, int]]],
) -> dict[str, float]:
    """PQ from sets of pixels, segment by segment; shares no code with the library."""
    counts = {label: [0.0, 0, 0, 0] for label in range(len(NAMES))}
    for truth, ids, labels in images:
        void = truth.ids == 0
        matched_truth, matched_found = set(), set()
        for number, label in truth.labels.items():
            for other, said in labels.items():
                if said != label or number in truth.crowds:
                    continue
                is_true, is_said = truth.ids == number, ids == other
                both = (is_true & is_said).sum()
                iou = both / (is_true.sum() + (is_said & ~void).sum() - both)
                if iou > 0.5:
                    counts[label][0] += iou
                    counts[label][1] += 1
                    matched_truth.add(number)
                    matched_found.add(other)
        for number, label in truth.labels.items():
            counts[label][3] += number not in matched_truth and number not in truth.crowds
        for other, said in labels.items():
            of_crowds = [n for n in truth.crowds if truth.labels[n] == said]
            nowhere = void | np.isin(truth.ids, of_crowds)
            is_said = ids == other
            wasted = (is_said & nowhere).sum() / is_said.sum() > 0.5
            counts[said][2] += other not in matched_found and not wasted
    quality = {
        label: iou / (tp + fp / 2 + fn / 2)
        for label, (iou, tp, fp, fn) in counts.items()
        if tp + fp + fn
    }
    return {
        "PQ": 100 * np.mean(list(quality.values())),
        "PQ_th": 100 * np.mean([quality[label] for label in THINGS]),
        "PQ_st": 100 * np.mean([quality[label] for label in (GRASS, SKY)]),
    }


def random_segments(rng: np.random.Generator) -> tuple[np.ndarray, dict[int, int]]:
    """Rectangles one over the other; stuff of one class is one segment."""
    ids = np.zeros((24, 30), int)
    labels: dict[int, int] = {}
    for number in range(1, 8):
        top, left = rng.integers(0, 20), rng.integers(0, 24)
        label = int(rng.integers(len(NAMES)))
        same = [n for n, of in labels.items() if of == label and label not in THINGS]
        ids[top : top + rng.integers(6, 16), left : left + rng.integers(6, 20)] = (
            same[0] if same else number
        )
        labels.setdefault(same[0] if same else number, label)
    return ids, {number: label for number, label in labels.items() if (ids == number).any()}


@pytest.mark.parametrize("seed", range(3))
def test_panoptic_quality_equals_plain_loops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(12):
        ids, labels = random_segments(rng)
        # as in COCO, no class has more than one crowd
        thing_of = {label: number for number, label in labels.items() if label in THINGS}
        crowds = frozenset(number for number in thing_of.values() if rng.random() < 0.3)
        # the truth, moved by a pixel or two and sometimes called by another name
        moved = np.roll(ids, rng.integers(-2, 3), axis=1)
        moved = np.where(rng.random(ids.shape) < 0.05, 0, moved)
        said = {
            number: int(rng.choice(THINGS)) if label in THINGS and rng.random() < 0.3 else label
            for number, label in labels.items()
            if (moved == number).any()
        }
        images.append((TrueSegments(ids.astype(np.int32), labels, crowds), moved, said))
    expected = slow_panoptic_quality(images)
    figures = scored(
        monkeypatch,
        [(truth, {"panoptic_seg": found_of(ids, said)}) for truth, ids, said in images],
    )
    assert 0 < expected["PQ"] < 100
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def instances_of(*entries: tuple[list[str], int, float]) -> Instances:
    """Drawings of 4 x 4 pixels with their class and score."""
    masks = [[[pixel == "#" for pixel in row] for row in rows] for rows, _, _ in entries]
    found = Instances((4, 4))
    found.pred_masks = torch.tensor(masks, dtype=torch.bool).reshape(-1, 4, 4)
    found.pred_classes = torch.tensor([label for _, label, _ in entries], dtype=torch.int64)
    found.scores = torch.tensor([score for _, _, score in entries])
    return found


LEFT, RIGHT = ["##..", "##..", "....", "...."], ["..##", "..##", "....", "...."]
THREE_QUARTERS = ["##..", "#...", "....", "...."]


def test_average_precision_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = true(["1122", "1122", "3333", "3333"], {1: CAT, 2: CAT, 3: GRASS})
    outputs = {
        "all right": instances_of((LEFT, CAT, 0.9), (RIGHT, CAT, 0.3)),
        # stuff and what comes after all that is right costs nothing
        "and more": instances_of((LEFT, CAT, 0.9), (RIGHT, CAT, 0.3), (LEFT, CAT, 0.1)),
        # IoU 3/4 counts at the thresholds 0.5 to 0.75, six of ten
        "a corner missing": instances_of((THREE_QUARTERS, CAT, 0.9), (RIGHT, CAT, 0.3)),
        "nothing": instances_of(),
    }
    figures = {
        name: scored(monkeypatch, [(truth, {"instances": found})], False, GROUPS)
        for name, found in outputs.items()
    }
    assert figures["all right"]["AP"] == pytest.approx(100)
    assert figures["all right"]["AP_seen"] == pytest.approx(100)
    assert math.isnan(figures["all right"]["AP_unseen"])
    assert figures["and more"]["AP"] == pytest.approx(100)
    assert figures["a corner missing"]["AP50"] == pytest.approx(100)
    # above 0.75 the better scored one is wrong: recall up to 1/2 with precision 1/2
    at_high = 0.5 * 51 / 101
    assert figures["a corner missing"]["AP"] == pytest.approx(100 * (6 + 4 * at_high) / 10)
    assert figures["nothing"]["AP"] == 0


def test_stuff_and_crowds_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = true(["1122", "1122", "3333", "3333"], {1: CAT, 2: CAT, 3: GRASS}, crowds=(2,))
    found = instances_of((LEFT, CAT, 0.5), (RIGHT, CAT, 0.9))
    figures = scored(monkeypatch, [(truth, {"instances": found})], panoptic=False)
    assert figures["AP"] == pytest.approx(100)


@pytest.fixture
def park(tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    """Two images of a registered data set, of which the second has no instance map."""
    labels = np.full((4, 4), GRASS, np.uint8)
    labels[:2] = CAT
    objects = np.zeros((4, 4), np.uint8)
    objects[:2, :2], objects[:2, 2:] = 1, 2
    Image.fromarray(labels).save(tmp_path / "labels.png")
    Image.fromarray(objects).save(tmp_path / "objects.png")
    MetadataCatalog.get("segments_park").set(
        stuff_classes=NAMES, ignore_label=255, thing_classes=["cat", "dog"], class_groups=GROUPS
    )
    DatasetCatalog.register("segments_park", list)
    yield [
        {
            "sem_seg_file_name": str(tmp_path / "labels.png"),
            "instance_file_name": str(tmp_path / file),
        }
        for file in ("objects.png", "gone.png")
    ]
    DatasetCatalog.remove("segments_park")
    MetadataCatalog.remove("segments_park")


def test_evaluator_leaves_an_image_out_of_all_scores(
    park: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = SemSegEvaluator(
        "segments_park", tmp_path / "out", panoptic=True, instances=True, num_pictures=1
    )
    ids = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 3, 3], [3, 3, 3, 3]])
    output = {
        "labels": torch.tensor(np.where(ids == 3, GRASS, CAT)),
        "panoptic_seg": found_of(ids, {1: CAT, 2: CAT, 3: GRASS}),
        "instances": instances_of((LEFT, CAT, 0.9), (RIGHT, CAT, 0.8)),
    }
    for found in park:
        found["file_name"] = str(tmp_path / "labels.png")
    with caplog.at_level(logging.INFO, "ovseg"):
        evaluator.process(park, [output, output])
        results = evaluator.evaluate()
    assert results is not None
    assert results["failed_images"] == 1
    assert results["sem_seg"]["mIoU"] == 100
    assert results["panoptic_seg"]["PQ"] == results["panoptic_seg"]["PQ_st"] == 100
    assert results["segm"]["AP"] == pytest.approx(100)
    assert "gone.png is missing" in caplog.text
    assert "Panoptic segmentation:" in caplog.text
    written = json.loads((tmp_path / "out/results.json").read_text())
    assert written["images"] == 1
    assert written["percent"]["mIoU"] == 100
    assert written["panoptic_seg"]["PQ"] == 100
    assert written["panoptic_seg"]["PQ_unseen"] is None
    assert written["segm"]["AP50"] == pytest.approx(100)
    assert written["meaning"]["PQ"].startswith("panoptic quality")
    document = (tmp_path / "out/results.md").read_text()
    assert "## Panoptic segmentation" in document
    assert "## Instances" in document
    evaluator.reset()
    assert math.isnan(evaluator.evaluate()["panoptic_seg"]["PQ"])  # type: ignore[index]


def test_without_segments_nothing_is_new(park: list[dict[str, Any]], tmp_path: Path) -> None:
    evaluator = SemSegEvaluator("segments_park", tmp_path / "out")
    evaluator.process(park[:1], [{"labels": torch.zeros(4, 4, dtype=torch.int64)}])
    assert set(evaluator.evaluate() or {}) == {"sem_seg"}
    assert "panoptic_seg" not in json.loads((tmp_path / "out/results.json").read_text())


def test_the_package_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    check_panoptic_quality()
    monkeypatch.setattr(segments.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(segments.UserError, match="pip install hotcoco"):
        check_panoptic_quality()
