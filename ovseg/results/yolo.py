"""YOLO's segmentation text: a line a region, its class and the corners of its outline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import yaml

from ovseg.results.outlines import polygons

if TYPE_CHECKING:
    from ovseg.prediction import Prediction


def text(prediction: Prediction) -> str:
    """``label x y x y ...`` for each part of each class; x and y in 0..1 of width and height.

    Parts that are straight lines of pixels are left out.
    """
    height, width = prediction.labels.shape
    lines = []
    for label in np.unique(prediction.labels[prediction.labels >= 0]).tolist():
        for polygon in polygons(prediction.labels == label):
            # within its pixel a corner is found again by readers that cut and by those that round
            corners = (polygon + 0.25) / (width, height)
            lines.append(" ".join([str(label), *(f"{value:.6f}" for value in corners.ravel())]))
    return "".join(f"{line}\n" for line in lines)


def data_yaml(class_names: list[str]) -> str:
    """``data.yaml`` beside the folders ``images`` and ``labels``."""
    content = {
        "train": "images",
        "val": "images",
        "nc": len(class_names),
        "names": dict(enumerate(class_names)),
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
