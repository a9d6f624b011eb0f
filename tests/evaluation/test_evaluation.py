"""Scores against hand-made cases and against an independent NumPy computation."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ovseg.colours import palette
from ovseg.errors import UserError
from ovseg.evaluation import (
    Mistake,
    Report,
    SemSegEvaluator,
    chart,
    group_miou,
    most_confused,
    new_confusion,
    scores,
    update_confusion,
)
from ovseg.evaluation.chart import write_chart
from ovseg.evaluation.confusion import NO_CLASS
from ovseg.evaluation.pictures import draw_comparison

WORDS = ["sky", "sea", "boat", "fish"]


def confusion_of(
    labels: np.ndarray, truth: np.ndarray, classes: int, ignore: int = 255
) -> np.ndarray:
    confusion = new_confusion(classes)
    update_confusion(confusion, labels, truth, ignore)
    return confusion


def reference(labels: np.ndarray, truth: np.ndarray, classes: int, ignore: int) -> dict[str, float]:
    """The scores from sets of pixels, class by class; shares no code with the library."""
    inside = truth != ignore
    ious, accs, weights, either = {}, {}, {}, 0
    for c in range(classes):
        is_true, is_said = (truth == c) & inside, (labels == c) & inside
        either += bool(is_true.any() or is_said.any())
        if is_true.any():
            ious[c] = (is_true & is_said).sum() / (is_true | is_said).sum()
            accs[c] = (is_true & is_said).sum() / is_true.sum()
            weights[c] = is_true.sum() / inside.sum()
    return {
        "miou": sum(ious.values()) / either,
        "miou_truth": sum(ious.values()) / len(ious),
        "fwiou": sum(ious[c] * weights[c] for c in ious),
        "macc": sum(accs.values()) / len(accs),
        "pacc": (labels == truth)[inside].mean(),
    }


def test_four_by_four() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [255, 255, 255, 255]])
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 2, -1], [2, 0, 1, -1]])
    confusion = confusion_of(labels, truth, 3)
    # rows: truth; columns: sky, sea, boat, nothing. The ignored row of pixels counts nowhere
    assert confusion.tolist() == [[4, 2, 0, 0], [0, 4, 1, 1], [0, 0, 0, 0]]
    result = scores(confusion)
    assert result.iou[:2].tolist() == pytest.approx([4 / 6, 4 / 8])
    assert np.isnan(result.iou[2])
    assert result.acc[:2].tolist() == pytest.approx([4 / 6, 4 / 6])
    # the boat is nowhere in the truth: 0 in the published mean, left out by detectron2's
    assert result.miou == pytest.approx((4 / 6 + 4 / 8) / 3)
    assert result.miou_truth == pytest.approx((4 / 6 + 4 / 8) / 2)
    assert result.pacc == pytest.approx(8 / 12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_equal_to_an_independent_computation(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    ignore = np.iinfo(dtype).max
    # classes 6 and 7 do not occur in the truth, 7 not in the prediction either
    truths = [rng.integers(0, 6, size).astype(dtype) for size in ((7, 9), (20, 3))]
    labels = [rng.integers(-1, 7, truth.shape) for truth in truths]
    for truth, said in zip(truths, labels, strict=True):
        truth[rng.random(truth.shape) < 0.2] = ignore
        keep = rng.random(truth.shape) < 0.5
        said[keep & (truth != ignore)] = truth[keep & (truth != ignore)]
    confusion = new_confusion(8)
    for truth, said in zip(truths, labels, strict=True):
        update_confusion(confusion, said, truth, ignore)
    result = scores(confusion)
    flat_truth = np.concatenate([t.ravel() for t in truths]).astype(np.int64)
    expected = reference(np.concatenate([x.ravel() for x in labels]), flat_truth, 8, ignore)
    assert {name: getattr(result, name) for name in expected} == pytest.approx(expected)


def test_empty_confusion_gives_nan() -> None:
    result = scores(confusion_of(np.zeros((2, 2)), np.full((2, 2), 255), 3))
    assert np.isnan([result.miou, result.miou_truth, result.fwiou, result.macc, result.pacc]).all()


def test_groups_and_harmonic_mean() -> None:
    truth = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    labels = np.array([0, 0, 1, 0, 2, 1, 3, 3])
    result = scores(confusion_of(labels, truth, 5))
    iou = {0: 2 / 3, 1: 1 / 3, 2: 1 / 2, 3: 1.0}
    means = group_miou(result, {"seen": [0, 1], "unseen": [2], "stuff": [3, 4]})
    assert means["seen"] == pytest.approx((iou[0] + iou[1]) / 2)
    assert means["unseen"] == pytest.approx(iou[2])
    assert means["stuff"] == pytest.approx(iou[3])  # class 4 occurs nowhere
    assert means["harmonic"] == pytest.approx(2 / (1 / means["seen"] + 1 / means["unseen"]))
    assert group_miou(result, {}) == {}
    nothing = scores(confusion_of(np.array([1, 0]), np.array([0, 1]), 2))
    assert group_miou(nothing, {"seen": [0], "unseen": [1]})["harmonic"] == 0.0


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\), ground truth \(3, 2\)"):
        confusion_of(np.zeros((2, 3), int), np.zeros((3, 2), int), 4)
    with pytest.raises(ValueError, match="ground truth holds label 4, outside the 4"):
        confusion_of(np.zeros((2, 2), int), np.full((2, 2), 4), 4)
    with pytest.raises(ValueError, match="prediction holds label 9"):
        confusion_of(np.full((2, 2), 9), np.zeros((2, 2), int), 4)


@pytest.fixture
def dataset() -> Iterator[str]:
    DatasetCatalog.register("harbour", list)
    MetadataCatalog.get("harbour").set(
        stuff_classes=WORDS,
        ignore_label=255,
        class_groups={"seen": [0, 2], "unseen": [3], "stuff": [1]},
    )
    yield "harbour"
    DatasetCatalog.remove("harbour")
    MetadataCatalog.remove("harbour")


def truth_file(folder: Path, values: np.ndarray, name: str = "truth.png") -> dict[str, str]:
    Image.fromarray(values.astype(np.uint8)).save(folder / name)
    return {"sem_seg_file_name": str(folder / name)}


def test_evaluator_over_files(
    dataset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, 4, (6, 7)) for _ in range(3)]
    truths[0][0] = 255
    labels = [np.where(rng.random(t.shape) < 0.6, t, 0) % 4 for t in truths]
    inputs = [truth_file(tmp_path, t, f"{i}.png") for i, t in enumerate(truths)]
    evaluator = SemSegEvaluator(dataset, tmp_path / "out")
    one_hot = torch.nn.functional.one_hot(torch.tensor(labels[2]), 4).permute(2, 0, 1)
    with caplog.at_level(logging.INFO, logger="ovseg"):
        evaluator.process(inputs[:2], [{"labels": torch.tensor(x)} for x in labels[:2]])
        evaluator.process(inputs[2:], [{"sem_seg": one_hot.float()}])
        results = evaluator.evaluate()
    assert results is not None
    expected = reference(np.stack(labels), np.stack(truths), 4, 255)
    sem_seg = results["sem_seg"]
    assert sem_seg["mIoU"] == pytest.approx(100 * expected["miou"])
    assert sem_seg["mIoU_detectron2"] == pytest.approx(100 * expected["miou_truth"])
    assert sem_seg["fwIoU"] == pytest.approx(100 * expected["fwiou"])
    assert sem_seg["pACC"] == pytest.approx(100 * expected["pacc"])
    assert sem_seg["mIoU_seen"] == pytest.approx((sem_seg["IoU-sky"] + sem_seg["IoU-boat"]) / 2)
    assert sem_seg["mIoU_unseen"] == pytest.approx(sem_seg["IoU-fish"])
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["dataset"] == "harbour"
    assert written["images"] == 3
    assert written["percent"] == pytest.approx(dict(sem_seg))
    assert "published table" in written["meaning"]["mIoU"]
    assert "mIoU_harmonic" in caplog.text
    assert "fish" in caplog.text


def test_class_without_pixels_is_null_in_json(dataset: str, tmp_path: Path) -> None:
    evaluator = SemSegEvaluator(dataset, tmp_path)
    truth = np.zeros((2, 2))
    evaluator.process([truth_file(tmp_path, truth)], [{"labels": torch.zeros(2, 2).long()}])
    evaluator.evaluate()
    percent = json.loads((tmp_path / "results.json").read_text())["percent"]
    assert percent["IoU-sky"] == 100
    assert percent["IoU-sea"] is None


def test_no_class_is_wrong_and_reset_forgets(dataset: str, tmp_path: Path) -> None:
    evaluator = SemSegEvaluator(dataset)
    inputs = [truth_file(tmp_path, np.zeros((2, 2)))]
    evaluator.process(inputs, [{"labels": torch.tensor([[0, -1], [-1, -1]])}])
    assert evaluator.evaluate()["sem_seg"]["pACC"] == 25
    # the model's internal extra class is no class either
    evaluator.reset()
    scores_ = torch.zeros(5, 2, 2)
    scores_[4] = 1
    evaluator.process(inputs, [{"sem_seg": scores_}])
    assert evaluator.evaluate()["sem_seg"]["pACC"] == 0


def test_what_cannot_be_counted_is_named_and_left_out(
    dataset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = SemSegEvaluator(dataset, tmp_path / "out")
    inputs: list[dict[str, str]] = [
        truth_file(tmp_path, np.zeros((3, 4)), "big.png"),
        truth_file(tmp_path, np.full((2, 2), 7), "odd.png"),
        {"sem_seg_file_name": str(tmp_path / "gone.png")},
        {**truth_file(tmp_path, np.zeros((2, 2))), "error": "photo a.jpg is broken; replace it"},
        truth_file(tmp_path, np.zeros((2, 2))),
    ]
    outputs = [{"labels": torch.zeros(2, 2).long()}] * 5
    outputs[3] = {}
    with caplog.at_level(logging.ERROR, logger="ovseg"):
        evaluator.process(inputs, outputs)
    results = evaluator.evaluate()
    assert results is not None
    assert results["failed_images"] == 4
    evaluator.reset()
    evaluator.process(inputs[:2], outputs[:2])
    with pytest.raises(UserError, match=r"all 2 were left out; the first: .*big\.png"):
        evaluator.evaluate()
    assert results["sem_seg"]["pACC"] == 100
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["images"] == 1
    expected = [
        r"^data set harbour: .*big\.png is 4 x 3 pixels, its image 2 x 2; prepare",
        r"^data set harbour: .*odd\.png: ground truth holds label 7, outside the 4 classes",
        r"^data set harbour: .*gone\.png is missing",
        r"^data set harbour: photo a\.jpg is broken; replace it$",
    ]
    for pattern, line in zip(expected, written["failed"], strict=True):
        assert re.search(pattern, line)
        assert line in caplog.text
        assert f"* {line}" in (tmp_path / "out" / "results.md").read_text()


def test_scores_after_those_of_the_classes_stand_for_none(dataset: str, tmp_path: Path) -> None:
    evaluator = SemSegEvaluator(dataset)
    truth = np.array([[0, 1, 2, 3, 3]])
    scores = torch.eye(5)[:, None]  # of four classes, and of "others"
    evaluator.process([truth_file(tmp_path, truth)], [{"sem_seg": scores}])
    assert evaluator.confusion.tolist() == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1],
    ]


def test_most_confused() -> None:
    confusion = np.array([[5, 2, 0, 1], [0, 9, 0, 3], [0, 0, 0, 0]])
    mistakes = most_confused(confusion, 2)
    assert mistakes == [Mistake(1, NO_CLASS, 3, 3 / 12), Mistake(0, 1, 2, 2 / 8)]
    assert len(most_confused(confusion, 10)) == 3
    assert most_confused(new_confusion(3), 5) == []


def test_report_as_a_document(tmp_path: Path) -> None:
    confusion = np.array([[6, 2, 0], [0, 0, 0]])
    report = Report("harbour", ["a|b", "sea"], confusion, 1)
    text = re.sub(" +", " ", report.markdown())
    assert r"| a\|b | 75.0 | 75.0 | 100.0 |" in text
    assert r"| a\|b | sea | 25.0 | 25.0 |" in text
    assert "Not evaluated" not in text
    assert "1 of 2 classes in the ground truth" in text
    assert "| mIoU | 37.50 |" in text
    assert "| mIoU_detectron2 | 75.00 |" in text


@pytest.mark.parametrize("classes", [1, 20, 847])
def test_chart_of_few_and_many_classes(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    confusion = new_confusion(classes)
    confusion[np.arange(classes), np.arange(classes)] = rng.integers(0, 90, classes)
    confusion[np.arange(classes), rng.integers(0, classes + 1, classes)] += 20
    names = [f"class ${i}$ {'with a long name' * (i % 7)}" for i in range(classes)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_chart(tmp_path / "chart.png", "harbour", confusion, names)
    with Image.open(tmp_path / "chart.png") as chart:
        width, height = chart.size
        pixels = np.asarray(chart.convert("RGB"))
    assert width == 1600
    assert height < 1300
    assert (pixels != 255).any(axis=2).mean() > 0.05


def test_chart_chooses_best_worst_and_most_mistaken() -> None:
    classes = 60
    confusion = new_confusion(classes)
    diagonal = np.arange(classes)
    confusion[diagonal, diagonal] = 1000
    confusion[7, 8] = 500
    confusion[30, classes] = 400
    cells = chart._most_mistaken(confusion, diagonal)
    assert len(cells) == 20
    assert {7, 8, 30} <= set(cells.tolist())
    shares = chart._shares(confusion, np.array([7, 8]))
    np.testing.assert_allclose(shares, [[100 * 2 / 3, 100 / 3, 0], [0, 100, 0]])
    shares = chart._shares(confusion, np.array([7, 30]))
    np.testing.assert_allclose(shares[1], [0, 100 / 1.4, 40 / 1.4])


def test_pictures_of_the_worst_and_best(dataset: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    evaluator = SemSegEvaluator(dataset, tmp_path / "out", num_pictures=2)
    (tmp_path / "out/pictures").mkdir(parents=True)
    (tmp_path / "out/pictures/worst_01_stale.jpg").touch()
    # image i has i of its 8 columns right
    for right in rng.permutation(9):
        truth = np.tile(np.repeat([1, 2], 4), (6, 1))
        said = np.where(np.arange(8) < right, truth, 3)
        photo = tmp_path / f"{right}.jpg"
        Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(photo)
        example = {**truth_file(tmp_path, truth, f"{right}.png"), "file_name": str(photo)}
        evaluator.process([example], [{"labels": torch.tensor(said)}])
        kept = evaluator._extremes._worst + evaluator._extremes._best
        assert len(kept) <= 4  # memory does not grow with the data set
    evaluator.evaluate()
    names = sorted(path.name for path in (tmp_path / "out/pictures").iterdir())
    assert names == ["best_01_8.jpg", "best_02_7.jpg", "worst_01_0.jpg", "worst_02_1.jpg"]


def test_comparison_shows_image_truth_and_prediction() -> None:
    image = np.full((32, 64, 3), 200, np.uint8)
    truth = np.repeat([[0, 1]], 32, 0).repeat(32, 1)
    truth[:8] = NO_CLASS
    strip = draw_comparison(image, truth, np.zeros_like(truth), ["sky", "sea"])
    height = strip.shape[0]
    middle = slice(height // 2, height // 2 + 100)
    np.testing.assert_array_equal(strip[middle, 100:600], 200)  # the image itself, enlarged
    # ground truth: left half sky, right half sea, each in its colour, half as strong
    sky, sea = (image[0, 0] // 2 + colour // 2 for colour in palette(2).astype(int))
    panel = strip[:, 640 + 12 :]
    bottom = height - 60
    np.testing.assert_allclose(panel[bottom, 40], sky, atol=2)
    np.testing.assert_allclose(panel[bottom, 600], sea, atol=2)
    np.testing.assert_array_equal(panel[-300, 100], 200)  # above: of no class
    # larger images are made smaller, not the strip larger
    large = draw_comparison(
        image.repeat(40, 0).repeat(40, 1),
        truth.repeat(40, 0).repeat(40, 1),
        truth.repeat(40, 0).repeat(40, 1),
        ["sky", "sea"],
    )
    assert large.shape[0] == height


def test_counts_of_all_processes_are_summed(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = SemSegEvaluator(dataset)
    inputs = [truth_file(tmp_path, np.zeros((2, 2)))]
    evaluator.process(inputs, [{"labels": torch.zeros(2, 2).long()}])
    other = new_confusion(4)
    other[0, 1] = 12
    monkeypatch.setattr(
        "ovseg.evaluation.sem_seg.comm.gather", lambda mine: [mine, (other, 1, ["x"])]
    )
    assert evaluator.evaluate()["sem_seg"]["pACC"] == 25
