"""Choose the best templates of each word from one pass over images, without ground truth.

Every template alone classifies the crops of the proposals. For each word the templates are best
whose probabilities have the lowest entropy, on average over the crops that they give the word to
(FLOSS, ICCV 2025, does so over pixels).
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor
from torch.nn import functional as F

from ovseg.data.loader import Example
from ovseg.data.own.registration import dataset_vocabulary
from ovseg.engine.resumable import Counts, RegionCounter, model_settings, resumable_pass
from ovseg.modeling import OVSeg
from ovseg.modeling.clip import template_features
from ovseg.structures import CropFeatures, Regions


def crop_entropies(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The best word of each crop by each template, int64 (M, V), and the entropy, (M, V), in nats.

    Args:
        logits: (M, V, W), of M templates.
    """
    logs = logits.log_softmax(dim=-1)
    return logits.argmax(dim=-1), -(logs.exp() * logs).sum(dim=-1)


def best_templates(entropy: np.ndarray, crops: np.ndarray, number: int) -> list[list[int]]:
    """The places of the best templates of each word, the best first.

    Args:
        entropy: (M, W), the sum over the crops that a template gives a word to.
        crops: (M, W), how many these are.
        number: of templates; fewer where fewer give the word to any crop.
    """
    mean = np.where(crops > 0, entropy / np.maximum(crops, 1), np.inf)
    order = mean.argsort(axis=0, kind="stable")[:number]
    return [
        [int(place) for place in order[:, word] if crops[place, word]]
        for word in range(crops.shape[1])
    ]


class TemplateCounter(RegionCounter):
    """Adds up entropies of the crops of images, by template and word."""

    def __init__(self, model: OVSeg, words: tuple[str, ...]) -> None:
        """Count with ``model``, which is in evaluation mode, for ``words``."""
        adapter = model.clip_adapter
        shape = (len(adapter.templates), len(words))
        self.counts = Counts({"entropy": np.zeros(shape), "crops": np.zeros(shape, np.int64)})
        self._model = model
        with torch.inference_mode():
            features = template_features(adapter.clip_model, words, adapter.templates)
        self._text = features.permute(1, 2, 0)  # (M, D, W)

    def count(self, example: Example, regions: Regions) -> None:
        """Count one image."""
        crops = self._model.encode_regions(regions).crops
        assert crops is not None
        self.add(crops)

    def add(self, crops: CropFeatures) -> None:
        """Add the crops of an image."""
        features = F.normalize(crops.features.float(), dim=-1)
        temperature = self._model.clip_adapter.encoder.temperature
        words, entropy = crop_entropies(temperature * features @ self._text)
        arrays = self.counts.arrays
        for row, (word, value) in enumerate(zip(words.cpu(), entropy.cpu(), strict=True)):
            np.add.at(arrays["entropy"][row], word.numpy(), value.double().numpy())
            np.add.at(arrays["crops"][row], word.numpy(), 1)


def choose_templates(
    cfg: CfgNode, model: OVSeg, number: int, folder: Path
) -> dict[str, Any] | None:
    """Choose over all data sets of ``DATASETS.TEST``, over all processes.

    Args:
        cfg: how images are read.
        model: with its weights, in evaluation mode.
        number: of templates for each word.
        folder: where unfinished counts are kept.

    Returns:
        On the main process the content of a file for :class:`TemplateChoice`; None on the others.
    """
    templates = model.clip_adapter.templates
    settings = {"templates": list(templates), **model_settings(cfg)}
    # of each word entropy and crops of the templates, over all data sets
    of_words: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros((2, len(templates))))
    images, failures = 0, list[str]()
    for name in cfg.DATASETS.TEST:
        words = tuple(dict.fromkeys(dataset_vocabulary(name).words))
        counter = TemplateCounter(model, words)
        counts = resumable_pass(
            cfg, name, counter.counts, counter, folder=folder, settings=settings
        )
        if counts is None:
            continue
        for place, word in enumerate(words):
            of_words[word] += [counts.arrays[key][:, place] for key in ("entropy", "crops")]
        images += counts.images
        failures += counts.failures
    if not comm.is_main_process():
        return None
    entropy, crops = np.stack([*of_words.values()], axis=-1)
    chosen = best_templates(entropy, crops, number)
    best = {word: places for word, places in zip(of_words, chosen, strict=True) if places}
    return {
        "templates": list(templates), "number": number, "images": images, "left out": failures,
        "best": best,
    }  # fmt: skip
