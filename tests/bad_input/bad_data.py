"""Broken and hostile data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from bad_cases import (
    RAN,
    WEIGHTS,
    Command,
    aliases,
    case,
    data_set,
    deep,
    photo,
    written,
)
from conftest import ROOT
from PIL import Image


def _label_maps(
    folder: Path, labels: np.ndarray, name: str = "photo.png", more: str = ""
) -> Command:
    photo(folder, "images/photo.jpg")
    (folder / "maps").mkdir(exist_ok=True)
    Image.fromarray(labels).save(folder / "maps" / name)
    text = "name: odd\nimages: images\nlabels: maps\nclasses: [grass, water]\n"
    return data_set(folder, text + more)


@case
def data_missing(folder: Path) -> Command:
    return ["evaluate", "--config-file", ROOT / "configs" / "ovseg_tiny.yaml", "--dataset",
            folder / "data.yaml", "MODEL.WEIGHTS", WEIGHTS]  # fmt: skip


@case
def data_broken_yaml(folder: Path) -> Command:
    return data_set(folder, "name: [")


@case
def data_python_tag(folder: Path) -> Command:
    return data_set(folder, f"name: !!python/object/apply:os.mkdir ['{folder / RAN}']\n")


@case
def data_alias_bomb(folder: Path) -> Command:
    return data_set(folder, aliases() + "name: x\n")


@case
def data_aliases_as_classes(folder: Path) -> Command:
    photo(folder, "images/photo.jpg")
    return data_set(folder, aliases(9).replace("a8: &a8", "classes:") + "name: x\nimages: images\n")


@case
def data_deep(folder: Path) -> Command:
    return data_set(folder, f"name: {deep('[', ']', 1000)}\n")


@case
def data_unknown_key(folder: Path) -> Command:
    return data_set(folder, "name: x\nimage: .\n")


@case
def data_folder_missing(folder: Path) -> Command:
    return data_set(folder, "name: x\nimages: none\nlabels: none\nclasses: [a]\n")


@case
def data_name_with_slash(folder: Path) -> Command:
    return data_set(folder, "name: ../../x\nimages: .\nlabels: .\nclasses: [a]\n")


@case
def data_labels_of_other_size(folder: Path) -> Command:
    return _label_maps(folder, np.zeros((5, 5), np.uint8))


@case
def data_labels_outside_the_classes(folder: Path) -> Command:
    return _label_maps(folder, np.full((24, 32), 9, np.uint8))


@case
def data_labels_in_colour(folder: Path) -> Command:
    return _label_maps(folder, np.zeros((24, 32, 3), np.uint8))


@case
def data_labels_lossy(folder: Path) -> Command:
    return _label_maps(folder, np.zeros((24, 32), np.uint8), "photo.jpg", "label_ext: jpg\n")


def _coco(folder: Path, content: str) -> Command:
    photo(folder, "images/photo.jpg")
    written(folder / "a.json", content)
    return data_set(folder, "name: odd\nimages: images\ncoco_json: a.json\n")


def _instances(segmentation: Any, height: int = 24, width: int = 32) -> str:
    image = {"id": 1, "file_name": "photo.jpg", "height": height, "width": width}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation}
    return json.dumps({"images": [image], "annotations": [annotation],
                       "categories": [{"id": 1, "name": "grass"}]})  # fmt: skip


@case
def data_coco_broken(folder: Path) -> Command:
    return _coco(folder, '{"images": [')


@case
def data_coco_deep(folder: Path) -> Command:
    return _coco(folder, deep("[", "]"))


@case
def data_coco_polygon_of_words(folder: Path) -> Command:
    return _coco(folder, _instances([["a", "b", "c", "d", "e", "f"]]))


@case
def data_coco_huge_size(folder: Path) -> Command:
    return _coco(folder, _instances({"size": [10**6, 10**6], "counts": "0"}, 10**6, 10**6))


@case
def data_yolo_of_words(folder: Path) -> Command:
    photo(folder, "images/photo.jpg")
    written(folder / "txt" / "photo.txt", "0 a b c d e f\n")
    return data_set(folder, "name: odd\nimages: images\nyolo: txt\nclasses: [grass]\n")
