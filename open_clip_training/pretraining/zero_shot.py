"""Zero-shot accuracy on regions with perfect masks, the quick check during CLIP training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from open_clip_training.common.images import CPU_CHUNK, normalise
from open_clip_training.common.regions import MIN_PIXELS, cut_regions, percent, region_sizes
from ovseg.data.label_maps import read_labels
from ovseg.data.stickerscenes import load_concepts
from ovseg.errors import UserError
from ovseg.modeling.clip import text_templates, word_features
from ovseg.utils.images import read_image


@dataclass
class LabelledCrops:
    """Tight crops of regions: RGB uint8 ``(N, 3, S, S)`` with and without their surroundings.

    ``masked`` has the surroundings filled with CLIP's mean colour; ``labels`` int64 ``(N,)``;
    ``alone`` bool ``(N,)`` is true for objects that have their image for themselves.
    """

    masked: Tensor
    whole: Tensor
    labels: Tensor
    alone: Tensor


def load_regions(root: Path, split: str, size: int, limit: int) -> LabelledCrops:
    """Cut every object and stuff region out of the first ``limit`` images of ``split``.

    Raises:
        UserError: the split is not there, or a file of it cannot be read.
    """
    paths = sorted((root / "images" / split).glob("*.png"))[:limit]
    if not paths:
        raise UserError(
            f"no images in {root / 'images' / split}: run datasets/prepare_stickerscenes.py"
        )
    masked: list[Tensor] = []
    whole: list[Tensor] = []
    labels: list[int] = []
    alone: list[bool] = []
    for path in paths:
        image = read_image(path)
        instances = read_labels(root / "instances" / split / path.name)
        # two regions of a class are two: an object is its instance
        ids = instances.astype(np.int32) * 256 + read_labels(
            root / "annotations" / split / path.name
        )
        chosen = [region for region, pixels in region_sizes(ids).items() if pixels >= MIN_PIXELS]
        for crops, fill_background in ((masked, True), (whole, False)):
            cut = cut_regions(image, ids, chosen, (size, size), fill_background=fill_background)
            # whole levels, as images have
            crops.append(cut.images.round().clamp(0, 255).byte())
        objects = len(np.unique(instances)) - 1
        labels += [region % 256 for region in chosen]
        alone += [objects == 1 and region >= 256 for region in chosen]
    return LabelledCrops(
        torch.cat(masked), torch.cat(whole), torch.tensor(labels), torch.tensor(alone)
    )


@torch.no_grad()
def zero_shot(model: open_clip.CLIP, regions: LabelledCrops) -> dict[str, float]:
    """Accuracies in percent: objects among 168 names, and all regions among 186."""
    training = model.training
    model.eval()
    vocabulary = load_concepts()
    names = [concept.name for concept in vocabulary]
    text = word_features(model, names, text_templates("vild", []))
    stuff = torch.tensor([concept.is_stuff for concept in vocabulary])
    unseen = torch.tensor([concept.split == "unseen" for concept in vocabulary])
    labels = regions.labels
    objects = ~stuff[labels]
    result = {}
    for kind, images in (("masked", regions.masked), ("whole", regions.whole)):
        parts = [model.encode_image(normalise(part)) for part in images.split(CPU_CHUNK)]
        scores = F.normalize(torch.cat(parts), dim=-1) @ text.T
        hit = scores.masked_fill(stuff, -2).argmax(dim=-1) == labels
        result[f"objects_{kind}"] = _accuracy(hit[objects])
        result[f"alone_{kind}"] = _accuracy(hit[regions.alone])
        result[f"unseen_{kind}"] = _accuracy(hit[unseen[labels]])
        everything = scores.argmax(dim=-1) == labels
        result[f"all_{kind}"] = _accuracy(everything)
        result[f"stuff_{kind}"] = _accuracy(everything[~objects])
    model.train(training)
    return result


def _accuracy(hits: Tensor) -> float:
    return percent(hits.float().mean(), 1)
