"""From an export of an annotation tool to a score, by the commands of docs/own-data.md."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as coco_mask

from ovseg.cli import segment, train
from ovseg.data.class_lists import load_class_list
from ovseg.data.datasets import load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.own.registration import register_custom

pytestmark = pytest.mark.usefixtures("forget_data_sets")

ROOT = Path(__file__).resolve().parents[3]
SCENES = ROOT / "tests/data/stickerscenes"
NAMES = ("grass", "brick wall", "water", "wood floor", "night sky")


def small_labels(count: int) -> dict[str, np.ndarray]:
    """Label maps of scenes of the embedded model's world, five kinds of stuff of it, from 1."""
    names = load_class_list("stickerscenes").names
    table = np.zeros(256, np.uint8)
    table[[names.index(name) for name in NAMES]] = range(1, 1 + len(NAMES))
    found = {}
    for path in sorted((SCENES / "annotations").iterdir()):
        labels = table[np.array(Image.open(path))]
        if len(np.unique(labels)) > 2 and len(found) < count:
            found[path.stem] = labels
    assert len(found) == count
    return found


def cvat_annotation(number: int, image: int, category: int, mask: np.ndarray) -> dict[str, Any]:
    """An annotation as CVAT's COCO 1.0 export writes it: RLE for masks, polygons for shapes."""
    entry: dict[str, Any] = {
        "id": number, "image_id": image, "category_id": category, "iscrowd": 0,
        "area": float(mask.sum()), "attributes": {"occluded": False},
        "bbox": [float(x) for x in cv2.boundingRect(mask)],
    }  # fmt: skip
    outlines, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    simple = all(place[3] < 0 for place in tree[0]) and all(len(line) > 2 for line in outlines)
    if simple:
        entry["segmentation"] = [line[:, 0].astype(float).ravel().tolist() for line in outlines]
    else:
        flat = mask.flatten(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff([0, *edges, flat.size]).tolist()
        counts = runs if flat[0] == 0 else [0, *runs]
        entry["segmentation"] = {"counts": counts, "size": list(mask.shape)}
        entry["iscrowd"] = 1
    return entry


@pytest.fixture
def export(tmp_path: Path) -> dict[str, np.ndarray]:
    """A task of four images as CVAT exports it, with images; the label maps it was made of."""
    (tmp_path / "images/default").mkdir(parents=True)
    (tmp_path / "annotations").mkdir()
    truths = small_labels(4)
    images, annotations = [], []
    for number, (stem, labels) in enumerate(truths.items(), start=1):
        shutil.copy(SCENES / f"images/{stem}.jpg", tmp_path / "images/default")
        height, width = labels.shape
        images.append({
            "id": number, "width": width, "height": height, "file_name": f"{stem}.jpg",
            "license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0,
        })  # fmt: skip
        for category in np.unique(labels[labels > 0]).tolist():
            mask = (labels == category).astype(np.uint8)
            annotations.append(cvat_annotation(len(annotations) + 1, number, category, mask))
    document = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "",
                 "version": "", "year": ""},
        "categories": [{"id": i, "name": name, "supercategory": ""}
                       for i, name in enumerate(NAMES, 1)],
        "images": images,
        "annotations": annotations,
    }  # fmt: skip
    (tmp_path / "annotations/instances_default.json").write_text(json.dumps(document))
    return truths


def describe(folder: Path, **keys: Any) -> Path:
    file = folder / "my_data.yaml"
    text = yaml.safe_dump({"name": "my_data", "images": "images/default", **keys}, sort_keys=False)
    file.write_text(text)
    return file


def evaluate(file: Path, output: Path) -> dict[str, Any]:
    train.main([
        "--eval-only", "--config-file", str(ROOT / "configs/ovseg_tiny.yaml"),
        "--dataset", str(file), "--check-data",
        "MODEL.WEIGHTS", str(ROOT / "resources/ovseg_tiny.pth"),
        "OUTPUT_DIR", str(output), "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0",
    ])  # fmt: skip
    results = json.loads((output / "inference/my_data/results.json").read_text())
    assert isinstance(results, dict)
    return results


def test_from_a_cvat_export_to_a_score(tmp_path: Path, export: dict[str, np.ndarray]) -> None:
    file = describe(tmp_path, coco_json="annotations/instances_default.json")
    results = evaluate(file, tmp_path / "coco")
    assert results["images"] == 4
    assert "failed" not in results or not results["failed"]
    log = (tmp_path / "coco/log.txt").read_text()
    assert "Data set my_data, all 4 images:" in log

    # the same label maps as files, which need no JSON, give nearly the same score
    register_custom([file])
    (tmp_path / "maps").mkdir()
    for example, (stem, labels) in zip(load_dataset("my_data"), export.items(), strict=True):
        assert Path(example["file_name"]).stem == stem
        made = read_truth(example)
        expected = np.where(labels > 0, labels.astype(int) - 1, 255)
        assert (made == expected).mean() > 0.97  # polygons cut their own edges
        Image.fromarray(labels).save(tmp_path / f"maps/{stem}.png")
    values = {number: name for number, name in enumerate(NAMES, 1)}
    file = describe(tmp_path, labels="maps", values=values, ignore_value=0)
    from_maps = evaluate(file, tmp_path / "maps_out")
    assert results["percent"]["mIoU"] > 30
    assert results["percent"]["mIoU"] == pytest.approx(from_maps["percent"]["mIoU"], abs=2)


def test_yolo_and_coco_of_the_same_polygons_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    (tmp_path / "images/default").mkdir(parents=True)
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images/default/a.jpg")
    polygons = [rng.uniform(0, 1, (5, 2)) for _ in range(6)]
    lines = [f"{i % 5} {' '.join(map(repr, p.ravel().tolist()))}" for i, p in enumerate(polygons)]
    (tmp_path / "labels/a.txt").write_text("\n".join(lines))
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": i % 5,
             "segmentation": [(p * (40, 30)).ravel().tolist()]}
            for i, p in enumerate(polygons)
        ],
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(document))
    register_custom([describe(tmp_path, coco_json="a.json")])
    (coco,) = load_dataset("my_data")
    register_custom([describe(tmp_path, yolo="labels", classes=list(NAMES))])
    (yolo,) = load_dataset("my_data")
    labels = read_truth(coco)
    np.testing.assert_array_equal(labels, read_truth(yolo))
    # every pixel has the smallest of the polygons that hold it, drawn one by one
    masks = [
        coco_mask.decode(coco_mask.frPyObjects([(p * (40, 30)).ravel().tolist()], 30, 40))[..., 0]
        for p in polygons
    ]
    for y, x in np.ndindex(30, 40):
        holding = [i for i, mask in enumerate(masks) if mask[y, x]]
        smallest = min(holding, key=lambda i: (masks[i].sum(), -i), default=None)
        assert labels[y, x] == (255 if smallest is None else smallest % 5)


def test_images_alone_are_segmented(tmp_path: Path, export: dict[str, np.ndarray]) -> None:
    file = describe(tmp_path, classes=[["grass", "lawn"], "water"])
    segment.main(["--dataset", str(file), "--output", str(tmp_path / "pred")])
    said = sorted(path.name for path in (tmp_path / "pred").glob("*.json"))
    assert said == sorted(f"{stem}.json" for stem in export)
    labels = {int(x) for path in (tmp_path / "pred").glob("*_labels.png")
              for x in np.unique(np.array(Image.open(path)))}  # fmt: skip
    assert labels <= {0, 1, 255}
