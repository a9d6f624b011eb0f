"""Pictures of the images that a model does worst and best on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.utils import comm
from PIL import Image, ImageDraw

from ovseg.data.label_maps import read_truth
from ovseg.evaluation.confusion import NO_CLASS
from ovseg.fonts import text_font
from ovseg.utils.images import read_image
from ovseg.utils.io import atomic_path
from ovseg.visualizer import MIN_OVERLAY_SIDE, draw_overlay

_CAPTION_SIZE = 18
_GAP = 12


@dataclass(frozen=True)
class _Image:
    score: float
    example: Mapping[str, Any]
    labels: np.ndarray


class ExtremeImages:
    """Keeps the images of the lowest and of the highest scores, over any number of processes."""

    def __init__(self, count: int) -> None:
        """Keep ``count`` of each end; of these memory holds the predicted label maps alone."""
        self.count = count
        self._worst: list[_Image] = []
        self._best: list[_Image] = []

    def offer(self, score: float, example: Mapping[str, Any], labels: np.ndarray) -> None:
        """Consider an image.

        Args:
            score: 0..1; an image without one (NaN) is passed over.
            example: its dataset dict.
            labels: integer (H, W), predicted classes, or ``NO_CLASS``.
        """
        if np.isnan(score):
            return
        # the image and its proposals are large
        named = {k: v for k, v in example.items() if k not in ("image", "proposals")}
        image = _Image(float(score), named, labels.astype(np.int16))
        self._worst = sorted([*self._worst, image], key=_worst_first)[: self.count]
        self._best = sorted([*self._best, image], key=_best_first)[: self.count]

    def save(self, folder: Path, class_names: Sequence[str], ignore_label: int) -> None:
        """Write ``worst_01_<name>.jpg`` ..., ``best_01_<name>.jpg`` ...; earlier ones are removed.

        To be called in all processes; each draws those of its images that are among the chosen.
        """
        if comm.is_main_process() and folder.is_dir():
            for pattern in ("worst_[0-9]*.jpg", "best_[0-9]*.jpg"):
                for old in folder.glob(pattern):
                    old.unlink()
        for kind, mine, order in (
            ("worst", self._worst, _worst_first),
            ("best", self._best, _best_first),
        ):
            # a meeting of all processes, after which old files are gone
            gathered = comm.all_gather([order(image) for image in mine])
            chosen = sorted(key for keys in gathered for key in keys)[: self.count]
            for image in mine:
                if order(image) in chosen:
                    number = 1 + chosen.index(order(image))
                    stem = Path(image.example["file_name"]).stem
                    strip = _draw(image, class_names, ignore_label)
                    with atomic_path(folder / f"{kind}_{number:02d}_{stem}.jpg") as path:
                        Image.fromarray(strip).save(path, quality=90)


def _worst_first(image: _Image) -> tuple[float, str]:
    return image.score, image.example["file_name"]


def _best_first(image: _Image) -> tuple[float, str]:
    return -image.score, image.example["file_name"]


def _draw(image: _Image, class_names: Sequence[str], ignore_label: int) -> np.ndarray:
    picture = read_image(image.example["file_name"])
    truth = read_truth(image.example).astype(np.int32)
    truth[truth == ignore_label] = NO_CLASS
    caption = f"prediction, mIoU {100 * image.score:.1f} %"
    return draw_comparison(picture, truth, image.labels, class_names, caption)


def draw_comparison(
    image: np.ndarray,
    truth: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    caption: str = "prediction",
) -> np.ndarray:
    """Image, ground truth and prediction beside each other, the latter two with legends.

    Args:
        image: uint8 (H, W, 3), RGB.
        truth, labels: integer (H, W), classes, or ``NO_CLASS``.
        class_names: name of every class.
        caption: over the prediction.

    Returns:
        uint8 (H', W', 3), RGB; the image's longer side is ``MIN_OVERLAY_SIDE``.
    """
    height, width = truth.shape
    factor = MIN_OVERLAY_SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    shrinks = factor < 1
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    panels = [("image", scaled)]
    for name, values in (("ground truth", truth), (caption, labels)):
        values = values.astype(np.int32)
        if shrinks:  # small label maps are enlarged, with smooth edges, by draw_overlay
            values = cv2.resize(values, size, interpolation=cv2.INTER_NEAREST)
        panels.append((name, draw_overlay(scaled if shrinks else image, values, class_names)))
    return _side_by_side(panels)


def _side_by_side(panels: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Pictures under their captions."""
    top = 2 * _CAPTION_SIZE
    height = top + max(picture.shape[0] for _, picture in panels)
    width = sum(picture.shape[1] for _, picture in panels) + _GAP * (len(panels) - 1)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    left = 0
    for caption, picture in panels:
        draw.text((left + 4, top // 2), caption, "black", text_font(_CAPTION_SIZE), anchor="lm")
        canvas.paste(Image.fromarray(picture), (left, top + (height - top - picture.shape[0]) // 2))
        left += picture.shape[1] + _GAP
    return np.asarray(canvas)
