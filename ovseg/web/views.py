"""What the page shows of a prediction: regions, areas, proposals, files. It knows no Gradio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ovseg.prediction import Prediction, ProposalScores
from ovseg.utils.io import atomic_path, write_json
from ovseg.web.tasks import reduced

AREA_HEADERS = ["Class", "Share", "Pixels", "Mean score"]
BRANCH_HEADERS = ["", "MaskFormer", "Probability", "CLIP", "Probability"]
_SHOWN_SIDE, _CARD_SIDE = 1024, 320
_BEST = 5
_NOT_FOUND = "–"


@dataclass(frozen=True)
class ColouredRegions:
    """An image with a mask for each class that was found, the largest first.

    Attributes:
        image: uint8 (h, w, 3), RGB.
        masks: float32 (h, w) in 0..1 each, its opacity, with the class's name.
        colours: ``#rrggbb`` by name.
    """

    image: np.ndarray
    masks: list[tuple[np.ndarray, str]]
    colours: dict[str, str]


def coloured_regions(prediction: Prediction, opacity: float) -> ColouredRegions:
    """The regions of a prediction, reduced to what a screen shows.

    Args:
        prediction: with its image.
        opacity: of the regions, 0..1; their outlines are always opaque.
    """
    image = reduced(prediction.image, _SHOWN_SIDE)
    height, width = image.shape[:2]
    labels = cv2.resize(prediction.labels, (width, height), interpolation=cv2.INTER_NEAREST)
    thickness = max(1, round(max(height, width) / 500))
    kernel = np.ones((2 * thickness + 1,) * 2, np.uint8)
    masks = []
    for entry in _by_share(prediction.describe()):
        inside = (labels == entry["label"]).astype(np.uint8)
        if not inside.any():
            continue
        # the border of the image is no outline
        core = cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1)
        masks.append((np.where(core == inside, opacity * inside, 1).astype(np.float32), entry))
    return ColouredRegions(
        image,
        [(mask, entry["name"]) for mask, entry in masks],
        {entry["name"]: entry["color"] for _, entry in masks},
    )


def area_rows(prediction: Prediction) -> list[list[str]]:
    """A row for each class, as in :data:`AREA_HEADERS`: the largest first, then those not found."""
    described = prediction.describe()
    rows = [
        [
            entry["name"],
            f"{100 * entry['share']:.1f} %" if entry["pixels"] else "not found",
            f"{entry['pixels']}" if entry["pixels"] else "",
            f"{entry['mean_score']:.2f}" if entry["pixels"] else "",
        ]
        for entry in _by_share(described)
    ]
    nothing = described["no_class"]
    if nothing["pixels"]:
        rows.append(["(no class)", f"{100 * nothing['share']:.1f} %", f"{nothing['pixels']}", ""])
    return rows


def area_colours(prediction: Prediction) -> list[str]:
    """The colour ``#rrggbb`` of each of the :func:`area_rows`; empty where it is not drawn."""
    described = prediction.describe()
    colours = [entry["color"] if entry["pixels"] else "" for entry in _by_share(described)]
    return colours + [""] * (described["no_class"]["pixels"] > 0)


def _by_share(described: Mapping[str, Any]) -> list[dict[str, Any]]:
    return sorted(described["classes"], key=lambda entry: -entry["pixels"])


@dataclass(frozen=True)
class ProposalCard:
    """A proposal as the page shows it.

    Attributes:
        caption: its number and the share of the image that it covers.
        image: uint8 (h, w, 3), RGB; the image with all but the proposal faded.
        best: rows as in :data:`BRANCH_HEADERS`; each branch's best classes.
    """

    caption: str
    image: np.ndarray
    best: list[list[str]]


def proposal_cards(
    proposals: ProposalScores, image: np.ndarray, names: list[str], mask_threshold: float
) -> list[ProposalCard]:
    """A card for each proposal with a pixel above the threshold, the largest first.

    Args:
        proposals: of the image.
        image: uint8 (H, W, 3), RGB.
        names: of the C classes.
        mask_threshold: a pixel belongs to a proposal where its probability exceeds this.
    """
    image = reduced(image, _CARD_SIDE)
    areas = (proposals.masks > mask_threshold).mean(axis=(1, 2))
    cards = []
    for query in np.argsort(-areas, kind="stable").tolist():
        if areas[query] == 0:
            break
        mask = cv2.resize(proposals.masks[query], image.shape[1::-1]) > mask_threshold
        columns = [
            _best_classes(probs, query, names)
            for probs in (proposals.maskformer_probs, proposals.clip_probs)
        ]
        rows = [
            [f"{place}", *of_maskformer, *of_clip]
            for place, (of_maskformer, of_clip) in enumerate(zip(*columns, strict=True), start=1)
        ]
        caption = f"{query}: {100 * areas[query]:.1f} %"
        cards.append(ProposalCard(caption, _spotlight(image, mask), rows))
    return cards


def _best_classes(probs: np.ndarray | None, query: int, names: list[str]) -> list[list[str]]:
    """Name and probability of a proposal's best classes; dashes where the branch says nothing."""
    count = min(_BEST, len(names))
    if probs is None or np.isnan(probs[query]).any():
        return [[_NOT_FOUND, ""]] * count
    best = np.argsort(-probs[query], kind="stable")[:count]
    return [[names[place], f"{probs[query, place]:.3f}"] for place in best]


def _spotlight(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) inside of a mask bool (H, W), outlined; faded to grey outside."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    result = np.where(mask[..., None], image, grey // 4 + 150)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(result, outlines, -1, (240, 80, 160), 2, cv2.LINE_AA)
    return result


def write_files(
    prediction: Prediction, folder: Path, stem: str, opacity: float, about: Mapping[str, Any]
) -> list[Path]:
    """Write what the page offers for download.

    Args:
        prediction: with its image.
        folder: where to; it exists.
        stem: of the files' names.
        opacity: of the overlay's regions.
        about: further entries of the JSON.

    Returns:
        Overlay, label map, JSON and COCO instances.
    """
    paths = [
        folder / f"{stem}{end}" for end in ("_overlay.png", "_labels.png", ".json", "_coco.json")
    ]
    overlay, labels, summary, coco = paths
    with atomic_path(overlay) as path:
        prediction.overlay(opacity).save(path)
    with atomic_path(labels) as path:
        prediction.label_image().save(path)
    for target, content in (
        (summary, {**about, **prediction.describe()}),
        (coco, prediction.to_coco(file_name=str(about.get("file", stem)))),
    ):
        write_json(target, content, indent=2)
    return paths
