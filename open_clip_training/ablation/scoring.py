"""Scores of a CLIP on saved proposals: ensemble weight chosen on one split, reported on another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor
from tqdm import tqdm

from open_clip_training.common.regions import percent
from ovseg.config import setup_cfg
from ovseg.data.datasets import class_groups, dataset_classes, ignore_label, load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.mapper import EvaluationMapper
from ovseg.engine.test_time import as_ovseg
from ovseg.evaluation import group_miou, new_confusion, scores, update_confusion
from ovseg.modeling import OVSeg
from ovseg.modeling.clip import read_clip_file
from ovseg.modeling.clip.weights import PROMPTS
from ovseg.predictor import Predictor
from ovseg.structures import Regions
from ovseg.utils.io import atomic_path
from ovseg.vocabulary import Vocabulary

#: ensemble weights that are tried on the choosing split
WEIGHTS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
#: mIoU in percent over all classes and over each group of them
Percents = dict[str, float]


@torch.inference_mode()
def record_proposals(cfg: CfgNode, dataset: str, limit: int, path: Path) -> None:
    """Save the proposals for the first ``limit`` images of a data set.

    ``path`` (npz) holds, for N images of one size, ``images`` uint8 (N, 3, H, W), RGB; ``masks``
    uint8 (N, Q, H, W), probability x 255; ``class_probs`` float32 (N, Q, C), MaskFormer's; and
    ``truth`` (N, h, w), the label maps.
    """
    model = as_ovseg(Predictor(cfg).model)
    mapper = EvaluationMapper(cfg, dataset)
    saved: dict[str, list[np.ndarray]] = {"images": [], "masks": [], "class_probs": [], "truth": []}
    for example in tqdm(load_dataset(dataset)[:limit], desc=f"proposals, {dataset}", disable=None):
        inputs = mapper(example)
        regions = model.propose([inputs])[0]
        saved["images"].append(inputs["image"].numpy())
        # a probability above 1/2 stays above 1/2
        saved["masks"].append((255 * regions.masks).round().byte().cpu().numpy())
        probs = model.classify_queries(regions, model.text(inputs["class_names"]))
        assert probs is not None  # MaskFormer's own proposals have embeddings
        saved["class_probs"].append(probs.cpu().numpy())
        saved["truth"].append(read_truth(example))
    arrays: dict[str, Any] = {name: np.stack(parts) for name, parts in saved.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def adapted_config(config_file: str, opts: Sequence[str], clip: Path) -> CfgNode:
    """The config of a model with the CLIP of a file, its mask prompts in use if it has any."""
    weights, _ = read_clip_file(clip)
    depth = len(weights[PROMPTS]) if PROMPTS in weights else 0
    with_clip = {
        "MODEL.WEIGHTS": "",
        "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME": str(clip),
        "MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH": str(depth),
        "MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD": str(depth > 0),
    }
    return setup_cfg(config_file, [*opts, *(part for pair in with_clip.items() for part in pair)])


@torch.inference_mode()
def score_clip(cfg: CfgNode, choosing: Path, reported: Path, datasets: tuple[str, str]) -> Any:
    """Scores of the CLIP that ``cfg`` names.

    Args:
        cfg: from :func:`adapted_config`; its proposal network is not used.
        choosing, reported: of :func:`record_proposals`. The weight is that of the best mIoU on
            ``choosing``, where labels are compared at half size, which is enough to choose.
        datasets: the data sets that they are of.

    Returns:
        ``weight``, ``sweep`` (mIoU on ``choosing`` by weight), and of ``reported`` the scores of
        ``maskformer`` alone, ``clip`` alone and the ``ensemble``, in percent.
    """
    model = as_ovseg(build_model(cfg).eval())
    sweep = _scores_by_weight(model, choosing, datasets[0], WEIGHTS, step=2)
    weight = max(WEIGHTS, key=lambda value: sweep[value]["all"])
    final = _scores_by_weight(model, reported, datasets[1], (None, 0.0, weight), step=1)
    return {
        "weight": weight,
        "sweep": {str(value): sweep[value]["all"] for value in WEIGHTS},
        "maskformer": final[None],
        "clip": final[0.0],
        "ensemble": final[weight],
    }


def _scores_by_weight(
    model: OVSeg, proposals: Path, dataset: str, weights: Sequence[float | None], step: int
) -> dict[float | None, Percents]:
    """Scores for several ensemble weights, CLIP run once; None: MaskFormer alone."""
    vocabulary = Vocabulary.of(dataset_classes([dataset]))
    text, ignored = model.text(vocabulary), ignore_label(dataset)
    confusions = {weight: new_confusion(len(vocabulary)) for weight in weights}
    for regions, probs, truth in _read_record(proposals, model.device):
        truth = truth[::step, ::step]
        inputs = {"height": truth.shape[0], "width": truth.shape[1], "class_names": vocabulary}
        seen = model.encode_regions(regions).crops  # by crops, or by a shared pass
        assert seen is not None
        clip = model.classify_crops(seen, text)
        alternatives = [
            model.combine(probs, None if weight is None else clip, weight) for weight in weights
        ]
        maps = model.label_maps(inputs, regions, alternatives).cpu().numpy()
        for confusion, labels in zip(confusions.values(), maps, strict=True):
            update_confusion(confusion, labels, truth, ignored)
    groups = class_groups(dataset)
    return {weight: _percents(confusions[weight], groups) for weight in weights}


def _read_record(path: Path, device: torch.device) -> Iterator[tuple[Regions, Tensor, np.ndarray]]:
    """Of each image its regions, MaskFormer's probabilities and the label map."""
    with np.load(path) as saved:
        arrays = [saved[name] for name in ("images", "masks", "class_probs", "truth")]
    for image, masks, class_probs, truth in zip(*arrays, strict=True):
        yield (
            Regions(
                image=torch.from_numpy(image).to(device),
                masks=torch.from_numpy(masks).to(device).float() / 255,
            ),
            torch.from_numpy(class_probs).to(device),
            truth,
        )


def _percents(confusion: np.ndarray, groups: Mapping[str, Sequence[int]]) -> Percents:
    result = scores(confusion)
    means = {"all": result.miou, **group_miou(result, groups)}
    return {name: percent(value, 3) for name, value in means.items()}
