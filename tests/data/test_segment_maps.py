"""True segments of instance maps and panoptic files, and which classes are things."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ovseg.data.own.registration import register_custom
from ovseg.data.datasets import load_dataset, register_split
from ovseg.data.splits import FROZEN, find_split
from ovseg.data.mapper import EvaluationMapper
from ovseg.data.segment_maps import check_segment_truth, read_segments, thing_classes
from ovseg.errors import UserError

GRASS, CAT, DOG, IGNORED = 0, 1, 2, 255


def example(folder: Path, labels: list[list[int]], objects: list[list[int]]) -> dict[str, Any]:
    """A dataset dict of a label map and an instance map."""
    for name, values in (("labels", labels), ("objects", objects)):
        Image.fromarray(np.array(values, np.uint8)).save(folder / f"{name}.png")
    return {
        "sem_seg_file_name": str(folder / "labels.png"),
        "instance_file_name": str(folder / "objects.png"),
    }


def test_objects_are_segments_and_stuff_is_one(tmp_path: Path) -> None:
    truth = read_segments(
        example(
            tmp_path,
            [[GRASS, CAT, CAT, GRASS], [GRASS, CAT, CAT, IGNORED], [DOG, DOG, CAT, GRASS]],
            # the last cat's pixel is no object's
            [[0, 1, 2, 5], [0, 1, 2, 3], [3, 3, 0, 0]],
        ),
        [CAT, DOG],
        IGNORED,
    )
    assert truth.ids.dtype == np.int32
    assert truth.ids.tolist() == [[1, 2, 3, 1], [1, 2, 3, 0], [4, 4, 0, 1]]
    assert truth.labels == {1: GRASS, 2: CAT, 3: CAT, 4: DOG}
    assert truth.crowds == frozenset()


def test_without_pixels_that_count_nowhere(tmp_path: Path) -> None:
    both = example(tmp_path, [[CAT, GRASS]], [[1, 0]])
    truth = read_segments(both, [CAT], IGNORED)
    assert truth.ids.tolist() == [[2, 1]]
    assert truth.labels == {1: GRASS, 2: CAT}
    nothing = read_segments(example(tmp_path, [[IGNORED]], [[1]]), [CAT], IGNORED)
    assert nothing.ids.tolist() == [[0]]
    assert nothing.labels == {}


def test_broken_instance_maps_are_named(tmp_path: Path) -> None:
    both = example(tmp_path, [[CAT, GRASS]], [[1], [0]])
    with pytest.raises(UserError, match=r"objects\.png is 1 x 2 pixels, its label map 2 x 1"):
        read_segments(both, [CAT], IGNORED)
    (tmp_path / "objects.png").unlink()
    with pytest.raises(UserError, match=r"objects\.png is missing"):
        read_segments(both, [CAT], IGNORED)


@pytest.fixture
def panoptic(tmp_path: Path) -> Iterator[str]:
    """A registered COCO panoptic data set of one image."""
    for folder in ("images", "panoptic"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (4, 2)).save(tmp_path / "images/a.jpg")
    ids = np.array([[7, 7, 300, 300], [7, 70000, 0, 300]])
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
    Image.fromarray(colours.astype(np.uint8)).save(tmp_path / "panoptic/a.png")
    content = {
        "categories": [
            {"id": 12, "name": "sea", "isthing": 0},
            {"id": 5, "name": "boat", "isthing": 1},
        ],
        "annotations": [
            {
                "file_name": "a.png",
                "segments_info": [
                    {"id": 7, "category_id": 12},
                    {"id": 300, "category_id": 5, "iscrowd": 1},
                    {"id": 70000, "category_id": 5, "iscrowd": 0},
                    {"id": 9, "category_id": 5},
                ],
            }
        ],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    file = tmp_path / "harbour.yaml"
    file.write_text(
        "name: segments_harbour\nimages: images\nlabels: panoptic\npanoptic_json: panoptic.json\n"
    )
    (name,) = register_custom([file])
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_panoptic_files_bring_their_segments(panoptic: str) -> None:
    assert thing_classes(panoptic) == ["boat"]
    check_segment_truth([panoptic])
    (found,) = load_dataset(panoptic)
    truth = read_segments(found, [1], 255)
    assert truth.ids.tolist() == [[7, 7, 300, 300], [7, 70000, 0, 300]]
    assert truth.labels == {7: 0, 300: 1, 70000: 1}
    assert truth.crowds == frozenset({300})


@pytest.fixture
def pets() -> Iterator[Any]:
    """Metadata of a data set of a cat, a dog and grass."""
    metadata = MetadataCatalog.get("segments_pets")
    metadata.set(stuff_classes=["cat", "dog ", "grass"])
    yield metadata
    MetadataCatalog.remove("segments_pets")


def test_things_are_those_of_the_metadata(pets: Any) -> None:
    assert thing_classes("segments_pets") == ["cat", "dog", "grass"]
    pets.set(class_groups={"seen": [0], "unseen": [1], "stuff": [2]})
    assert thing_classes("segments_pets") == ["cat", "dog"]
    # detectron2's own say more than groups
    pets.set(thing_classes=["dog"])
    assert thing_classes("segments_pets") == ["dog"]


def test_things_of_a_standard_panoptic_data_set(pets: Any) -> None:
    # all classes are listed under both names; the numbers tell
    pets.set(
        thing_classes=["cat", "dog", "grass"], thing_dataset_id_to_contiguous_id={17: 0, 18: 1}
    )
    assert thing_classes("segments_pets") == ["cat", "dog"]


def test_stickerscenes_have_instance_maps(small_config: Any, tmp_path: Path) -> None:
    assert find_split("stickerscenes_test").instances == "stickerscenes/instances/test"
    things = thing_classes("stickerscenes_test")
    assert len(things) == 168
    assert "grass" not in things
    (first, *_) = load_dataset(FROZEN.name)
    mapped = EvaluationMapper(small_config(), FROZEN.name)(first)
    assert list(mapped["thing_classes"]) == thing_classes(FROZEN.name)
    assert mapped["instance_file_name"] == first["instance_file_name"]


def test_every_object_of_the_frozen_sample_has_one_class() -> None:
    check_segment_truth([FROZEN.name])
    labels = MetadataCatalog.get(FROZEN.name).stuff_classes
    things = {labels.index(name) for name in thing_classes(FROZEN.name)}
    objects = 0
    for found in load_dataset(FROZEN.name):
        truth = read_segments(found, things, 255)
        assert (truth.ids > 0).all()
        with Image.open(found["instance_file_name"]) as file:
            numbers = set(np.unique(np.asarray(file)).tolist()) - {0}
        # as many things as objects, and none of them touched by stuff
        assert sum(label in things for label in truth.labels.values()) == len(numbers)
        objects += len(numbers)
    assert objects > 150


def test_missing_ground_truth_is_found_before_any_work(tmp_path: Path) -> None:
    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / folder / "a.png")
    splits = [
        replace(FROZEN, name="segments_lost", image_ext="png", instances="gone"),
        replace(FROZEN, name="segments_none", image_ext="png", instances=""),
    ]
    for split in splits:
        register_split(split, tmp_path)
    try:
        with pytest.raises(UserError, match=r"segments_lost: instance map .*a\.png is missing"):
            check_segment_truth(["segments_lost"])
        with pytest.raises(UserError, match="segments_none has no instance maps; set MODEL"):
            check_segment_truth(["segments_none"])
    finally:
        for split in splits:
            DatasetCatalog.remove(split.name)
            MetadataCatalog.remove(split.name)
