"""What a prediction can be saved as, by name.

Overlay, label map and JSON lie in the folder itself. Every other format has a subfolder with a file
for each image, and some have a file for all of them, which is put together at the end from the
images' own: so a run that was stopped can go on.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ovseg.errors import UserError
from ovseg.results import coco, html, labelstudio, yolo
from ovseg.utils.io import atomic_path, read_json, write_json, write_text

if TYPE_CHECKING:
    from ovseg.prediction import Prediction
    from ovseg.results.files import ResultPaths

#: entries of the JSON that belong to an image: its file, the model
About = dict[str, Any]
_FILE_NAME = 40
_COCO, _LABELSTUDIO, _LABELSTUDIO_XML = "coco.json", "labelstudio.json", "labelstudio.xml"


@dataclass(frozen=True)
class Format:
    """A way to save predictions.

    Attributes:
        about: what it is, for the help.
        paths: the files, or the folder, of an image; the first is named in its JSON.
        write: writes them, each whole or not at all.
        finish: writes the file of all images into the folder and returns it, where there is one.
        joint: files of all images that lie in the folder itself.
        needs: the module that it takes besides NumPy and Pillow, and what installs it.
    """

    about: str
    paths: Callable[[ResultPaths], list[Path]]
    write: Callable[[Prediction, ResultPaths, About], None]
    finish: Callable[[Path, Sequence[ResultPaths]], Path] | None = None
    joint: tuple[str, ...] = ()
    needs: tuple[str, str] | None = None


def _save_overlay(prediction: Prediction, paths: ResultPaths, about: About) -> None:
    with atomic_path(paths.overlay) as path:
        lossy = path.suffix.lower() in {".jpg", ".jpeg", ".webp"}
        options: dict[str, Any] = {"quality": 92} if lossy else {}
        prediction.overlay().save(path, **options)


def _save_labels(prediction: Prediction, paths: ResultPaths, about: About) -> None:
    with atomic_path(paths.labels) as path:
        prediction.label_image().save(path)


def _save_masks(prediction: Prediction, paths: ResultPaths, about: About) -> None:
    """A 1-bit PNG for each class that was found, ``<label>_<name>.png``."""
    (folder,) = FORMATS["masks"].paths(paths)
    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for label in np.unique(prediction.labels[prediction.labels >= 0]).tolist():
        name = re.sub(r"[^\w-]+", "_", prediction.class_names[label])[:_FILE_NAME].strip("_")
        file = folder / f"{label:03d}_{name}.png"
        with atomic_path(file) as path:
            Image.fromarray(prediction.labels == label).save(path)
        written.add(file)
    for old in folder.glob("[0-9][0-9][0-9]*_*.png"):  # of other words
        if old not in written:
            old.unlink()


def _save_scores(prediction: Prediction, paths: ResultPaths, about: About) -> None:
    (file,) = FORMATS["scores"].paths(paths)
    with atomic_path(file) as path:
        np.savez_compressed(path, scores=prediction.scores.astype(np.float16))


def _save_coco(prediction: Prediction, paths: ResultPaths, about: About) -> None:
    (file,) = FORMATS["coco"].paths(paths)
    write_json(file, prediction.to_coco(about.get("file", paths.name)))


def _finish_coco(folder: Path, done: Sequence[ResultPaths]) -> Path:
    document = coco.merged(_parts("coco", done))
    for image, name in zip(
        document["images"], _short_names([i["file_name"] for i in document["images"]]), strict=True
    ):
        image["file_name"] = name
    write_json(folder / _COCO, document)
    return folder / _COCO


def _save_labelstudio(prediction: Prediction, paths: ResultPaths, about: About) -> None:
    (file,) = FORMATS["labelstudio"].paths(paths)
    task = prediction.to_labelstudio(about.get("file", paths.name))
    colours = [entry["color"] for entry in prediction.describe()["classes"]]
    write_text(
        paths.folder / _LABELSTUDIO_XML,
        labelstudio.labeling_config(prediction.class_names, colours),
    )
    write_json(file, task)


def _finish_labelstudio(folder: Path, done: Sequence[ResultPaths]) -> Path:
    tasks = _parts("labelstudio", done)
    names = _short_names([task["data"][labelstudio.IMAGE] for task in tasks])
    for task, name in zip(tasks, names, strict=True):
        task["data"][labelstudio.IMAGE] = name
    write_json(folder / _LABELSTUDIO, tasks)
    return folder / _LABELSTUDIO


def _save_yolo(prediction: Prediction, paths: ResultPaths, about: About) -> None:
    text, image = FORMATS["yolo"].paths(paths)
    write_text(paths.folder / "yolo" / "data.yaml", yolo.data_yaml(prediction.class_names))
    with atomic_path(image) as path:
        Image.fromarray(prediction.image).save(path, quality=95)
    write_text(text, prediction.to_yolo())


def _save_html(prediction: Prediction, paths: ResultPaths, about: About) -> None:
    script, image = FORMATS["html"].paths(paths)
    with atomic_path(image) as path:
        html.shown_image(prediction).save(path, quality=90)
    write_text(script, html.script(prediction, paths.name, about.get("file", paths.name)))


def _finish_html(folder: Path, done: Sequence[ResultPaths]) -> Path:
    file = folder / "html" / "index.html"
    write_text(file, html.page([paths.name for paths in done]))
    return file


def _parts(name: str, done: Sequence[ResultPaths]) -> list[Any]:
    return [read_json(FORMATS[name].paths(paths)[0], dict) for paths in done]


def _short_names(files: Sequence[str]) -> list[str]:
    """File names without folders, where these are all different; else the paths as they are."""
    names = [Path(file).name for file in files]
    return names if len(set(names)) == len(names) else list(files)


FORMATS: dict[str, Format] = {
    "overlay": Format("the image, coloured", lambda paths: [paths.overlay], _save_overlay),
    "labels": Format("the label map, PNG", lambda paths: [paths.labels], _save_labels),
    "masks": Format(
        "a 1-bit PNG for each class found", lambda paths: [paths.part("masks", "")], _save_masks
    ),
    "scores": Format(
        "the scores of the labels, NPZ of float16",
        lambda paths: [paths.part("scores", ".npz")],
        _save_scores,
    ),
    "coco": Format(
        "COCO instances, as CVAT reads them",
        lambda paths: [paths.part("coco", ".json")],
        _save_coco,
        _finish_coco,
        joint=(_COCO,),
        needs=("pycocotools", "pycocotools"),
    ),
    "labelstudio": Format(
        "Label Studio's brush masks",
        lambda paths: [paths.part("labelstudio", ".json")],
        _save_labelstudio,
        _finish_labelstudio,
        joint=(_LABELSTUDIO, _LABELSTUDIO_XML),
    ),
    "yolo": Format(
        "YOLO segmentation text with the images",
        lambda paths: [paths.part("yolo/labels", ".txt"), paths.part("yolo/images", ".jpg")],
        _save_yolo,
        needs=("cv2", "opencv-python-headless"),
    ),
    "html": Format(
        "a page of all images",
        lambda paths: [paths.part("html", ".js"), paths.part("html", ".jpg")],
        _save_html,
        _finish_html,
    ),
}
DEFAULT_FORMATS = ("overlay", "labels")
#: always written, and what shows that an image is done
SUMMARY = "json"


def read_formats(text: str) -> tuple[str, ...]:
    """Names of :data:`FORMATS`, separated by commas, each once.

    Raises:
        UserError: an unknown name, none, or a library that a format needs is missing.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    known = (*FORMATS, SUMMARY)
    for name in names:
        if name not in known:
            raise UserError(f"--save {name!r} is not known; choose from {', '.join(known)}")
        needs = FORMATS[name].needs if name in FORMATS else None
        if needs and importlib.util.find_spec(needs[0]) is None:
            raise UserError(f"--save {name} needs {needs[0]}; install it: pip install {needs[1]}")
    if not names:
        raise UserError(f"--save {text!r} names nothing; choose from {', '.join(known)}")
    return tuple(name for name in dict.fromkeys(names) if name != SUMMARY)
