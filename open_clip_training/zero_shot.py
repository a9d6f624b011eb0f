"""Zero-shot accuracy on regions with perfect masks, the quick check during CLIP training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import open_clip
import torch
from torch import Tensor, nn

from ovseg.data.stickerscenes import load_concepts
from ovseg.errors import UserError
from ovseg.modeling.clip import text_templates, word_features

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
MIN_PIXELS = 64


@dataclass
class Regions:
    """Tight crops of regions: RGB uint8 ``(N, 3, S, S)`` with and without their surroundings.

    ``masked`` has the surroundings filled with CLIP's mean colour; ``labels`` int64 ``(N,)``;
    ``alone`` bool ``(N,)`` is true for objects that have their picture for themselves.
    """

    masked: Tensor
    whole: Tensor
    labels: Tensor
    alone: Tensor


def load_regions(root: Path, split: str, size: int, limit: int) -> Regions:
    """Cut every object and stuff region out of the first ``limit`` pictures of ``split``.

    Raises:
        UserError: the split is not there.
    """
    paths = sorted((root / "images" / split).glob("*.png"))[:limit]
    if not paths:
        raise UserError(
            f"no pictures in {root / 'images' / split}: run datasets/prepare_stickerscenes.py"
        )
    fill = np.round(255 * np.asarray(MEAN)).astype(np.uint8)
    masked, whole, labels, alone = [], [], [], []
    for path in paths:
        image = _read(path)[..., ::-1]
        classes = _read(root / "annotations" / split / path.name)
        instances = _read(root / "instances" / split / path.name)
        regions = instances.astype(np.int32) * 256 + classes
        objects = len(np.unique(instances)) - 1
        for value in np.unique(regions):
            mask = regions == value
            if mask.sum() < MIN_PIXELS:
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            crop = image[box]
            filled = np.where(mask[box][..., None], crop, fill)
            masked.append(cv2.resize(filled, (size, size), interpolation=cv2.INTER_CUBIC))
            whole.append(cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC))
            labels.append(int(value % 256))
            alone.append(objects == 1 and value >= 256)
    return Regions(
        masked=torch.from_numpy(np.stack(masked)).permute(0, 3, 1, 2).contiguous(),
        whole=torch.from_numpy(np.stack(whole)).permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor(labels),
        alone=torch.tensor(alone),
    )


def _read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise UserError(f"{path} cannot be read: run datasets/prepare_stickerscenes.py --overwrite")
    return picture


def normalise(images: Tensor) -> Tensor:
    """RGB ``(N, 3, S, S)`` in 0..255 to CLIP's standardised values."""
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


@torch.no_grad()
def zero_shot(model: open_clip.CLIP, regions: Regions) -> dict[str, float]:
    """Accuracies in percent: objects among 168 names, and all regions among 186."""
    training = model.training
    model.eval()
    concepts = load_concepts()
    names = [concept.name for concept in concepts]
    text = word_features(model, names, text_templates("vild", []))
    stuff = torch.tensor([concept.is_stuff for concept in concepts])
    unseen = torch.tensor([concept.split == "unseen" for concept in concepts])
    labels = regions.labels
    objects = ~stuff[labels]
    result = {}
    for kind, images in (("masked", regions.masked), ("whole", regions.whole)):
        parts = [model.encode_image(normalise(part)) for part in images.split(64)]
        scores = nn.functional.normalize(torch.cat(parts), dim=-1) @ text.T
        hit = scores.masked_fill(stuff, -2).argmax(dim=-1) == labels
        result[f"objects_{kind}"] = _percent(hit[objects])
        result[f"alone_{kind}"] = _percent(hit[regions.alone])
        result[f"unseen_{kind}"] = _percent(hit[unseen[labels]])
        everything = scores.argmax(dim=-1) == labels
        result[f"all_{kind}"] = _percent(everything)
        result[f"stuff_{kind}"] = _percent(everything[~objects])
    model.train(training)
    return result


def _percent(hits: Tensor) -> float:
    return round(100 * float(hits.float().mean()), 1) if len(hits) else float("nan")
