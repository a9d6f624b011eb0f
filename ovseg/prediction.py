"""A prediction as files: the overlay, the label map, and a JSON with what was found where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ovseg.errors import UserError
from ovseg.result_files import ResultPaths
from ovseg.structures import Prediction
from ovseg.utils.io import atomic_path
from ovseg.visualizer import draw_overlay, palette

#: label maps with more classes than this have 16 bits
_MOST_CLASSES_IN_8_BITS = 254


def none_label(n_classes: int) -> int:
    """The value of pixels without a class in a label map's file: 255, or 65535 in 16 bits."""
    return 255 if n_classes <= _MOST_CLASSES_IN_8_BITS else 65535


def save_result(
    image: np.ndarray, prediction: Prediction, paths: ResultPaths, about: dict[str, Any]
) -> None:
    """Write the three files, each whole or not at all; the JSON comes last.

    Args:
        image: uint8 (H, W, 3), RGB.
        prediction: of that picture.
        paths: where to; missing folders are made, existing files replaced.
        about: further entries of the JSON (the picture's file, the model).

    Raises:
        UserError: a file cannot be written.
    """
    summary = {
        **about,
        **describe(prediction),
        "overlay": paths.overlay.name,
        "label_map": paths.labels.name,
    }
    try:
        with atomic_path(paths.overlay) as path:
            options: dict[str, Any] = {"quality": 92} if _is_lossy(path) else {}
            Image.fromarray(draw_overlay(image, prediction)).save(path, **options)
        with atomic_path(paths.labels) as path:
            _label_image(prediction).save(path)
        with atomic_path(paths.summary) as path:
            path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        folder = str(paths.overlay.parent)
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot write results to {folder!r} ({reason}); give another --output"
        ) from error


def describe(prediction: Prediction) -> dict[str, Any]:
    """What a prediction says, ready for JSON.

    ``classes`` has one entry for every word, in the order of the label map's values: ``pixels``,
    ``share`` of the picture (0..1), ``mean_score`` over its pixels (``None`` without any; a score
    is a sum over proposals and may exceed 1), and the ``color`` of overlay and label map.
    """
    labels, scores = prediction.labels.flatten(), prediction.scores.flatten()
    areas = prediction.areas()
    found = labels >= 0
    sums = torch.zeros(len(areas), dtype=torch.float64)
    sums.index_add_(0, labels[found], scores[found].double())
    total = max(labels.numel(), 1)
    classes = [
        {
            "label": index,
            "name": name,
            "pixels": pixels,
            "share": round(pixels / total, 6),
            "mean_score": round(float(sums[index]) / pixels, 6) if pixels else None,
            "color": "#{:02x}{:02x}{:02x}".format(*colour),
        }
        for index, (name, pixels, colour) in enumerate(
            zip(prediction.class_names, areas, palette(len(areas)).tolist(), strict=True)
        )
    ]
    height, width = prediction.labels.shape
    nothing = labels.numel() - sum(areas)
    return {
        "width": width,
        "height": height,
        "classes": classes,
        "no_class": {
            "label": none_label(len(areas)),
            "pixels": nothing,
            "share": round(nothing / total, 6),
        },
    }


def _label_image(prediction: Prediction) -> Image.Image:
    n_classes = len(prediction.class_names)
    none = none_label(n_classes)
    labels = prediction.labels.numpy()
    values = np.where(labels < 0, none, labels).astype(np.uint8 if none == 255 else np.uint16)
    image = Image.fromarray(values)
    if none == 255:
        colours = np.zeros((256, 3), np.uint8)
        colours[:n_classes] = palette(n_classes)
        image.putpalette(colours.tobytes())
    return image


def _is_lossy(path: Path) -> bool:
    return path.suffix.lower() in {".jpg", ".jpeg", ".webp"}
