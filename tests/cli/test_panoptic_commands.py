"""``ovseg evaluate`` and ``ovseg segment`` with panoptic segments and instances."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import said
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from PIL import Image
from tiny_world import CONFIGS, tiny_opts, write_clip

from ovseg.cli import segment, train
from ovseg.config import setup_cfg
from ovseg.data.datasets import load_dataset, register_split
from ovseg.data.segment_maps import read_segments, thing_classes
from ovseg.data.splits import Split
from ovseg.modeling import OVSeg
from ovseg.vocabulary import Vocabulary

pytest.importorskip("hotcoco")

SWIN = CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml"
NAME = "panoptic_world"
NAMES = Split(NAME, "", "", "pascal_voc_20").classes().names
SIZE = 48


def write_scene(root: Path, index: int) -> None:
    """Two things of one class and one of another on two kinds of stuff, and an ignored border."""
    rng = np.random.default_rng(index)
    labels = np.full((SIZE, SIZE), 18, np.uint8)
    labels[: SIZE // 2] = 19
    objects = np.zeros((SIZE, SIZE), np.uint8)
    first, second = (int(label) for label in rng.permutation(18)[:2])
    for number, (label, left) in enumerate([(first, 4), (first, 20), (second, 34)], start=1):
        top = int(rng.integers(4, 28))
        labels[top : top + 12, left : left + 10] = label
        objects[top : top + 12, left : left + 10] = number
    labels[:2] = 255
    image = np.stack([labels * k for k in (1, 37, 101)], axis=-1)
    for folder, array in (("images", image), ("labels", labels), ("objects", objects)):
        (root / folder).mkdir(exist_ok=True)
        Image.fromarray(array).save(root / folder / f"{index}.png")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A data set, a small random model, and proposals that are the truth."""
    root = tmp_path_factory.mktemp("world")
    for index in range(4):
        write_scene(root, index)
    split = Split(NAME, "images", "labels", "pascal_voc_20", image_ext="png", instances="objects")
    register_split(split, root)
    MetadataCatalog.get(NAME).set(thing_classes=list(NAMES[:18]))
    opts = tiny_opts(
        write_clip(root / "clip.pt"),
        MODEL__CLIP_ADAPTER__CLIP_ENSEMBLE=False,
        INPUT__MIN_SIZE_TEST=0,
        MODEL__MASK_FORMER__TEST__PANOPTIC_ON=True,
        MODEL__MASK_FORMER__TEST__INSTANCE_ON=True,
        DATASETS__TEST=NAME,
    )
    torch.manual_seed(0)
    model = build_model(setup_cfg(SWIN, opts))
    torch.save({"model": model.state_dict()}, root / "weights.pth")
    opts += ["MODEL.WEIGHTS", str(root / "weights.pth")]
    write_true_proposals(model.eval(), root / "proposals" / NAME)
    yield {"root": root, "opts": opts}
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def write_true_proposals(model: OVSeg, folder: Path) -> None:
    """The true segments, each with its class's text feature for an embedding."""
    folder.mkdir(parents=True)
    things = {NAMES.index(name) for name in thing_classes(NAME)}
    with torch.no_grad():
        features = model.text(Vocabulary.of(NAMES)).features[:-1]
    for example in load_dataset(NAME):
        truth = read_segments(example, things, 255)
        masks = truth.ids[None] == np.array(list(truth.labels))[:, None, None]
        embeddings = features[list(truth.labels.values())].numpy()
        path = folder / Path(example["file_name"]).with_suffix(".npz").name
        np.savez(path, masks=masks, embeddings=embeddings)


def evaluate(world: dict[str, Any], output: Path, *opts: str) -> dict[str, Any]:
    proposals = str(world["root"] / "proposals")
    train.main(
        ["--eval-only", "--config-file", str(SWIN), "--load-proposals", proposals]
        + world["opts"]
        + ["OUTPUT_DIR", str(output), *opts]
    )
    document: dict[str, Any] = json.loads(
        (output / "inference" / NAME / "results.json").read_text()
    )
    return document


def test_true_proposals_score_everything(world: dict[str, Any], tmp_path: Path) -> None:
    document = evaluate(world, tmp_path)
    for name in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"):
        assert document["panoptic_seg"][name] == pytest.approx(100), name
    assert document["segm"]["AP"] == pytest.approx(100)
    assert document["percent"]["mIoU"] == pytest.approx(100)


def test_one_thing_alone_may_be_kept(world: dict[str, Any], tmp_path: Path) -> None:
    # all true objects are there and exact, but only the best of each image may be an instance
    document = evaluate(world, tmp_path, "TEST.DETECTIONS_PER_IMAGE", "1")
    assert document["panoptic_seg"]["PQ"] == pytest.approx(100)
    assert 0 < document["segm"]["AP"] < 60


def run_segment(world: dict[str, Any], *options: str, on: bool = True) -> int:
    """``ovseg segment`` on the first image with the words sea, cat and dog; the exit code."""
    picture = str(world["root"] / "images/0.png")
    keys = ("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "MODEL.MASK_FORMER.TEST.INSTANCE_ON")
    opts = [*world["opts"], *(part for key in keys for part in (key, str(on)))]
    words = ["--class-names", "sea", "cat", "dog"]
    try:
        segment.main(
            ["--config-file", str(SWIN), *words, "--input", picture, *options, "--opts", *opts]
        )
    except SystemExit as ended:
        return int(str(ended.code))
    return 0


def test_command_writes_segments(world: dict[str, Any], tmp_path: Path) -> None:
    things = ["--thing-classes", "dog", "cat"]
    assert run_segment(world, "--output", str(tmp_path), *things) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "0_overlay.png", "0_labels.png", "0_panoptic.png", "0.json"
    }  # fmt: skip
    summary = json.loads((tmp_path / "0.json").read_text("utf-8"))
    with Image.open(tmp_path / summary["panoptic"]) as file:
        ids = np.asarray(file).astype(int) @ [1, 256, 65536]
    assert ids.shape == (SIZE, SIZE)
    assert summary["segments"]
    for part in summary["segments"]:
        assert part["pixels"] == (ids == part["id"]).sum() > 0
        assert part["is_thing"] == (part["name"] != "sea")
    assert [part["name"] for part in summary["segments"]].count("sea") <= 1
    assert summary["instances"]
    assert "sea" not in {instance["name"] for instance in summary["instances"]}
    assert [entry["name"] for entry in summary["classes"]] == ["sea", "cat", "dog"]


def test_command_without_them_writes_what_it_did(world: dict[str, Any], tmp_path: Path) -> None:
    assert run_segment(world, "--output", str(tmp_path), on=False) == 0
    assert not (tmp_path / "0_panoptic.png").exists()
    assert not {"segments", "instances", "panoptic"} & set(
        json.loads((tmp_path / "0.json").read_text("utf-8"))
    )


def test_wrong_things_are_named_before_the_model_is_loaded(
    world: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_segment(world, "--output", str(tmp_path / "new"), "--thing-classes", "boat") == 2
    assert said(capsys) == [
        "error: --thing-classes 'boat' is none of the class names (synonyms do not count): "
        "sea, cat, dog"
    ]
    assert not (tmp_path / "new").exists()


def test_things_without_segments_are_refused(
    world: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new"
    things = ["--thing-classes", "cat"]
    assert run_segment(world, "--output", str(output), *things, on=False) == 2
    (line,) = said(capsys)
    assert line.startswith(
        "error: --thing-classes has no effect without segments; add --opts MODEL"
    )
    assert not output.exists()


def test_no_ground_truth_and_no_package_are_named(
    world: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = Split("panoptic_semantic", "images", "labels", "pascal_voc_20", image_ext="png")
    register_split(split, world["root"])
    command = ["--eval-only", "--config-file", str(SWIN), *world["opts"]]
    command += ["OUTPUT_DIR", str(tmp_path / "out")]
    try:
        with pytest.raises(SystemExit):
            train.main([*command, "DATASETS.TEST", "panoptic_semantic"])
        (line,) = said(capsys)
        assert "data set panoptic_semantic has no instance maps; set MODEL.MASK_FORMER" in line
        monkeypatch.setattr("ovseg.evaluation.segments.importlib.util.find_spec", lambda name: None)
        with pytest.raises(SystemExit):
            train.main(command)
        (line,) = said(capsys)
        assert line.endswith("needs the package hotcoco; pip install hotcoco")
    finally:
        DatasetCatalog.remove(split.name)
        MetadataCatalog.remove(split.name)
