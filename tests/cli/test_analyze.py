"""The analysis: hand-made regions, and settings that must agree with each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_world import CONFIGS, tiny_opts, tiny_world

from ovseg.cli import analyze
from ovseg.config import setup_cfg
from ovseg.data.datasets import load_dataset
from ovseg.engine.oracle_analysis import _true_classes
from ovseg.engine.trainer import Trainer, load_model
from ovseg.evaluation.oracles import IOU_BINS, pairwise_iou, recall

SWIN = str(CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml")


def test_iou_of_hand_made_masks():
    masks = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    regions = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
    expected = [[1, 1 / 3, 0], [0, 0, 0], [1 / 2, 1 / 2, 0]]
    np.testing.assert_allclose(pairwise_iou(masks, regions), expected, rtol=1e-6)


def test_recall_counts_regions_from_their_iou_on():
    histogram = np.zeros((2, IOU_BINS), np.int64)
    histogram[0, 50] = histogram[1, 100] = histogram[1, 49] = histogram[0, 0] = 1
    assert [recall(histogram, at) for at in (0, 0.49, 0.5, 0.51, 1)] == [1, 0.75, 0.5, 0.25, 0.25]
    assert np.isnan(recall(histogram[:0], 0.5))


def test_each_mask_gets_the_class_that_it_fits_best():
    iou = np.array([[0.1, 0.6], [0.3, 0.2]], np.float32)
    classified = _true_classes(iou, np.array([2, 4]), 6, torch.device("cpu"))
    expected = torch.zeros(2, 6)
    expected[0, 4], expected[1, 2] = 0.6, 0.3
    torch.testing.assert_close(classified.class_probs, expected)
    assert classified.queries.tolist() == [0, 1]


@pytest.fixture(scope="module")
def opts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    root = tmp_path_factory.mktemp("world")
    with tiny_world(root, prefix="analysed") as clip:
        # 48 pixels: images are not resized
        opts = tiny_opts(
            clip,
            MODEL__WEIGHTS=root / "model.pth",
            DATASETS__TEST="analysed_dev",
            INPUT__MIN_SIZE_TEST=48,
            OUTPUT_DIR=root / "output",
        )
        torch.manual_seed(0)
        torch.save(
            {"model": Trainer.build_model(setup_cfg(SWIN, opts)).state_dict()}, root / "model.pth"
        )
        yield opts


def analysed(output: Path, *arguments: str) -> dict:
    analyze.main(["--config-file", SWIN, "--output", str(output), *arguments])
    document: dict = json.loads((output / "analysed_dev" / "analysis.json").read_text())
    return document


def test_predictions_are_those_of_an_evaluation(opts, tmp_path, capsys):
    old = tmp_path / "analysed_dev" / "worst" / "03_of_an_earlier_run.jpg"
    old.parent.mkdir(parents=True)
    old.touch()
    # named twice, it counts once
    twice = ["DATASETS.TEST", "analysed_dev,analysed_dev"]
    document = analysed(tmp_path, "--worst", "2", *opts, *twice)
    cfg = setup_cfg(SWIN, opts)
    model = load_model(cfg)
    for name, changes in (
        ("ensemble", {}),
        ("CLIP alone", {"clip_ensemble_weight": 0.0}),
        ("MaskFormer alone", {"clip_ensemble": False}),
    ):
        for attribute, value in changes.items():
            setattr(model, attribute, value)
        expected = Trainer.test(cfg, model)["sem_seg"]
        for key in ("mIoU", "pACC"):
            assert document["settings"][name][key] == pytest.approx(expected[key], abs=1e-4)
    folder = tmp_path / "analysed_dev"
    pictures = sorted(path.name for path in (folder / "worst").iterdir())
    files = [Path(image["file"]).stem for image in document["worst images"]]
    assert pictures == [f"{i:02d}_{stem}.jpg" for i, stem in enumerate(files, start=1)]
    assert len(pictures) == 2
    assert {path.name for path in folder.iterdir()} == {
        "analysis.json", "analysis.md", "analysis.png", "worst"
    }  # fmt: skip
    assert "oracle masks, CLIP on masked crops" in capsys.readouterr().out


def test_true_masks_as_proposals_leave_nothing_to_find(opts, tmp_path):
    truth = tmp_path / "truth"
    truth.mkdir()
    for example in load_dataset("analysed_dev"):
        labels = np.asarray(Image.open(example["sem_seg_file_name"]))
        classes = np.unique(labels[labels < 255])
        masks = labels == classes[:, None, None]
        np.savez_compressed(truth / f"{Path(example['file_name']).stem}.npz", masks=masks)
    load = ("--load-proposals", str(truth), "--worst", "0")
    document = analysed(tmp_path / "out", *load, *opts)
    settings = document["settings"]
    assert settings["predicted masks, oracle classes"]["mIoU"] == 100
    assert document["recall"]["all"] == [100] * 19
    # the same masks, summed up or painted
    oracle = settings["oracle masks, CLIP on masked crops"]
    assert settings["CLIP alone"]["mIoU"] == oracle["mIoU"]
    # there is no MaskFormer in it
    assert "MaskFormer alone" not in settings
    assert document["true regions"] == sum(
        len(np.load(file)["masks"]) for file in truth.glob("*.npz")
    )


def test_mistakes_are_answered(opts, tmp_path, capsys):
    for arguments, expected in (
        (["--limit", "0"], "--limit 0 is too small"),
        (["--worst", "many"], "'many'"),
        (["--load-proposals", "gone"], "'gone' does not exist"),
        (["--num-gpus", "99"], "--num-gpus 99"),
        (["MODEL.WEIGHTS", "gone.pth"], "'gone.pth': there is no such file"),
    ):
        # config keys go last
        options = arguments if arguments[0].startswith("--") else []
        with pytest.raises(SystemExit) as caught:
            analysed(tmp_path / "out", *options, *opts, *([] if options else arguments))
        assert caught.value.code == 2
        assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_ground_truth_is_named_before_any_work(opts, tmp_path, capsys):
    with tiny_world(tmp_path, prefix="unlabelled"):
        for example in load_dataset("unlabelled_dev")[:2]:
            nothing = np.full((48, 56), 255, np.uint8)
            Image.fromarray(nothing).save(example["sem_seg_file_name"])
        arguments = ["--limit", "2", *opts, "DATASETS.TEST", "unlabelled_dev"]
        with pytest.raises(SystemExit) as caught:
            analysed(tmp_path / "out", *arguments)
    assert caught.value.code == 2
    assert "data set unlabelled_dev: there is no ground truth" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
