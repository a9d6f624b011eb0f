#!/usr/bin/env python3
"""Ways to tell which pixels belong to none of the given classes: the tables of docs/reject.md.

    python tools/benchmark/reject.py

Class names, drawn by a seed, are given to the model, and the others hidden. A good score of "none
of these" is larger at pixels of hidden classes than at pixels of given ones. Every image is encoded
once, into a folder under --output, where a second call finds it. Scores are taken at every second
pixel in both directions. The comparison's thresholds lose 5 % of the known pixels of --choose-on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor
from tqdm import tqdm

from ovseg.background_words import background_words
from ovseg.config import setup_cfg
from ovseg.data.class_lists import load_class_list
from ovseg.data.datasets import dataset_classes, load_dataset
from ovseg.data.label_maps import read_labels
from ovseg.data.mapper import EvaluationMapper
from ovseg.engine.resumable import model_settings
from ovseg.engine.trainer import load_model
from ovseg.errors import Parser, cli_errors
from ovseg.evaluation.confusion import NO_CLASS
from ovseg.evaluation.rejection import (
    ScoredPixels,
    auroc,
    false_positive_rate,
    threshold_of_recall,
)  # fmt: skip
from ovseg.modeling import OVSeg
from ovseg.modeling.reject import probabilities_with_background
from ovseg.structures import Classified, ClipClasses, CropFeatures, Regions, TextEmbeddings
from ovseg.utils.io import atomic_path
from ovseg.vocabulary import OTHERS, Vocabulary

STEP = 2
LOST = 0.05
STRENGTHS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
#: number of given names -> number of draws
DRAWS = {20: 3, 5: 6, 1: 20}
SHIPPED, OFF = "both, softened (`--reject`)", "off"
_TINY = 1e-12


@dataclass
class EncodedScene:
    """An encoded image: regions, their masks at P pixels (Q, P), and true labels int64 (P,)."""

    regions: Regions
    truth: np.ndarray


@dataclass
class Words:
    """Given words, with reject and without, and lists of words that none of them is."""

    given: TextEmbeddings
    plain: TextEmbeddings
    lists: dict[str, Tensor]

    @classmethod
    def of(cls, model: OVSeg, given: Sequence[str], names: Iterable[str]) -> Words:
        """``names``: all classes of the data set."""
        vocabulary = Vocabulary.of(given)
        general = background_words(given)
        coco = [name.removesuffix("-other") for name in load_class_list("coco_stuff_171").names]
        lists = {
            "general": general,
            "unknown": [word for word in general if word not in set(names)],
            "COCO": [word for word in coco if word not in set(given)],
            OTHERS: [OTHERS],
        }
        encode = model.clip_adapter.text_features
        # at 0.5 the background has the weight 1
        return cls(
            model.text(replace(vocabulary, reject=0.5)),
            model.text(vocabulary),
            {name: encode(words)[:-1] for name, words in lists.items()},
        )


@dataclass
class Scored:
    """Of P pixels: how much speaks for none of the classes, and the best class; float32, int64."""

    none: np.ndarray
    labels: np.ndarray


Finder = Callable[[OVSeg, Words, EncodedScene], dict[str, Scored]]


def compete(classified: Classified, masks: Tensor) -> Scored:
    """Of what competes, the last is none of the classes."""
    pixels = classified.class_probs.T @ masks[classified.queries]
    best = pixels[:-1].max(dim=0)
    return Scored((pixels[-1] / (best.values + _TINY)).numpy(), best.indices.numpy())


def off_and_on(model: OVSeg, words: Words, scene: EncodedScene) -> dict[str, Scored]:
    """The published system, where "others" competes with a single class, and ``--reject``."""
    masks = scene.regions.masks
    plain = model.classify(scene.regions, words.plain)
    if words.plain.vocabulary.class_of_word[-1] == NO_CLASS:
        off = compete(plain, masks)
    else:
        labels = (plain.class_probs.T @ masks[plain.queries]).argmax(dim=0).numpy()
        off = Scored(np.zeros(len(labels), np.float32), labels)
    return {OFF: off, SHIPPED: compete(model.classify(scene.regions, words.given), masks)}


def with_rest(logits: Tensor, rest: Tensor) -> Tensor:
    """Softmax over both; the probabilities of ``rest`` are added up in the last column."""
    probs = torch.cat([logits, rest], dim=1).softmax(dim=1)
    count = logits.shape[1]
    return torch.cat([probs[:, :count], probs[:, count:].sum(1, keepdim=True)], dim=1)


def all_ways(model: OVSeg, words: Words, scene: EncodedScene) -> dict[str, Scored]:
    """Every way to score an image's pixels, by name."""
    regions, similarity = scene.regions, model.clip_adapter.similarity
    masks, crops = regions.masks, regions.crops
    assert regions.embeddings is not None
    assert crops is not None
    valid = crops.valid
    former = similarity(regions.embeddings, words.given.features)
    clip = similarity(crops.features, words.given.features)
    lists = {name: similarity(crops.features, x) for name, x in words.lists.items()}
    others, general = (
        similarity(regions.embeddings, words.lists[name]) for name in (OTHERS, "general")
    )

    def both(of_former: Tensor, of_clip: Tensor) -> Scored:
        return compete(model.combine(of_former, ClipClasses(of_clip, valid)), masks)

    def soft(name: str) -> Tensor:
        return probabilities_with_background(clip[:, :-1], lists[name])

    def shipped(seen: Regions) -> Scored:
        return compete(model.classify(seen, words.given), masks)

    published, hard = former.softmax(1), with_rest(clip[:, :-1], lists["general"])
    one = torch.ones_like(former[:, :1])
    beside_others = with_rest(torch.cat([former[:, :-1], others], 1), former[:, -1:])[:, :-1]
    beside_words = with_rest(former[:, :-1], torch.cat([general, former[:, -1:]], 1))
    pixels = model.classify(regions, words.plain).class_probs.T @ masks
    labels = pixels.argmax(dim=0).numpy()
    first, second = pixels.topk(2, dim=0).values
    by_pixel = {
        "score of the best class": -first,
        "its share in all scores": -first / (pixels.sum(dim=0) + _TINY),
        "its margin over the second": second - first,
        '"no object", MaskFormer\'s': published[:, -1] @ masks / (first + _TINY),
    }
    found = shipped(regions)
    return {
        **{way: Scored(none.numpy(), labels) for way, none in by_pixel.items()},
        'the word "others", both branches': both(
            beside_others, with_rest(clip[:, :-1], lists[OTHERS])
        ),
        '"no object", both branches': both(published, clip.softmax(1)),
        "general words, CLIP's": both(torch.cat([published[:, :-1], one], 1), hard),
        "general words, both branches": both(beside_words, hard),
        '"no object" of MaskFormer\'s and general words of CLIP\'s ("both")': both(published, hard),
        SHIPPED: found,
        "and the score of the best class": Scored(
            found.none / (first.numpy() + _TINY) ** 0.5, found.labels
        ),
        "the words are COCO-Stuff's names": both(published, soft("COCO")),
        "the words name no class of StickerScenes": both(published, soft("unknown")),
        "MaskFormer without CLIP": shipped(replace(regions, crops=None)),
        "CLIP without MaskFormer's embeddings": shipped(replace(regions, embeddings=None)),
    }


@torch.inference_mode()
def encoded(cfg: CfgNode, model: OVSeg, name: str, count: int, cache: Path) -> list[EncodedScene]:
    """The first ``count`` images of a data set."""
    digest = hashlib.sha256(json.dumps(model_settings(cfg)).encode()).hexdigest()
    mapper = EvaluationMapper(cfg, name)
    scenes = []
    for example in tqdm(load_dataset(name)[:count], desc=name, disable=None):
        file = cache / digest[:16] / name / f"{Path(example['file_name']).stem}.pt"
        if not file.is_file():
            (found,) = model.encode([mapper(example)])
            assert found.embeddings is not None
            assert found.crops is not None
            parts = {
                "masks": found.masks.half(),
                "embeddings": found.embeddings,
                "features": found.crops.features,
                "valid": found.crops.valid,
            }
            with atomic_path(file) as path:
                torch.save(parts, path)
        saved = torch.load(file, weights_only=True)
        truth = read_labels(example["sem_seg_file_name"])
        masks = F.interpolate(saved["masks"].float()[None], truth.shape, mode="bilinear")[0]
        masks = masks[:, ::STEP, ::STEP].flatten(1)
        crops = CropFeatures(saved["features"], saved["valid"])
        regions = Regions(torch.empty(0), masks, saved["embeddings"], crops)
        scenes.append(EncodedScene(regions, truth[::STEP, ::STEP].flatten().astype(np.int64)))
    return scenes


@torch.inference_mode()
def look(
    model: OVSeg,
    scenes: Sequence[EncodedScene],
    names: Sequence[str],
    seed: int,
    count: int,
    by: Finder,
) -> dict[str, ScoredPixels]:
    """The pixels of all images by way to score them, ``count`` names drawn and given."""
    given = np.sort(np.random.default_rng(seed).permutation(len(names))[:count])
    table = np.full(256, NO_CLASS)
    table[: len(names)] = count
    table[given] = np.arange(count)
    truth = np.concatenate([table[scene.truth] for scene in scenes])
    counted = truth != NO_CLASS
    words = Words.of(model, [names[label] for label in given], names)
    found = [by(model, words, scene) for scene in tqdm(scenes, leave=False, disable=None)]
    pixels = {}
    for way in found[0]:
        none, labels = (
            np.concatenate([getattr(each[way], field) for each in found])[counted]
            for field in ("none", "labels")
        )
        pixels[way] = ScoredPixels(none, labels, truth[counted], count)
    return pixels


def row(name: str, *columns: Sequence[float]) -> str:
    """A row of a table: means of fractions, in percent."""
    return f"| {name} | {' | '.join(f'{100 * np.mean(column):.1f}' for column in columns)} |"


def separation(found: Sequence[ScoredPixels]) -> tuple[list[float], list[float]]:
    """AUROC and false positive rate of each."""
    pairs = [(each.hidden, each.known) for each in found]
    return [auroc(*pair) for pair in pairs], [false_positive_rate(*pair) for pair in pairs]


def at(found: Sequence[ScoredPixels], threshold: float) -> tuple[list[float], ...]:
    """Known pixels lost, hidden pixels found, mIoU."""
    return (
        [float((each.known >= threshold).mean()) for each in found],
        [float((each.hidden >= threshold).mean()) for each in found],
        [each.miou(threshold) for each in found],
    )


def run(args: argparse.Namespace) -> None:
    """Print the tables."""
    cfg = setup_cfg(args.config_file, ["MODEL.WEIGHTS", args.weights, "MODEL.DEVICE", "cpu"])
    model = load_model(cfg)
    names = dataset_classes([args.choose_on, args.report_on])
    cache = Path(args.output, "encoded")
    dev = encoded(cfg, model, args.choose_on, args.images[0], cache)
    test = encoded(cfg, model, args.report_on, args.images[1], cache)
    half, seeds = len(names) // 2, range(args.halves)
    chosen, reported = (
        [look(model, scenes, names, seed, half, all_ways) for seed in seeds]
        for scenes in (dev, test)
    )
    print(f"{half} of {len(names)} names, seeds 0 to {seeds[-1]}; {len(dev)} images of "
          f"{args.choose_on}, {len(test)} of {args.report_on}\n")  # fmt: skip
    print("| way | dev AUROC | FPR | test AUROC | FPR | known lost | hidden found | mIoU |")
    print("|---|---|---|---|---|---|---|---|")
    for way in chosen[0]:
        ours, theirs = [each[way] for each in chosen], [each[way] for each in reported]
        threshold = threshold_of_recall(np.concatenate([each.known for each in ours]), LOST)
        print(row(way, *separation(ours), *separation(theirs), *at(theirs, threshold)))
    for count, draws in {half: args.halves, **DRAWS}.items():
        found = [look(model, test, names, seed, count, off_and_on) for seed in range(draws)]
        found = [each for each in found if each[OFF].known.size]
        print(f"\n{count} names given, {len(found)} draws\n")
        print("| strength | known lost | hidden found | mIoU |\n|---|---|---|---|")
        print(row(OFF, *at([each[OFF] for each in found], 1.0)))
        for strength in STRENGTHS:
            weighed = (1 - strength) / strength
            print(row(f"{strength}", *at([each[SHIPPED] for each in found], weighed)))


def main() -> None:
    """The command line."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--config-file", default="configs/ovseg_tiny.yaml")
    add("--weights", default="ovseg://ovseg_tiny.pth")
    add("--choose-on", default="stickerscenes_dev", help="default: stickerscenes_dev")
    add("--report-on", default="stickerscenes_test", help="default: stickerscenes_test")
    add("--images", type=int, nargs=2, default=[150, 300], metavar="N",
        help="the first so many of both (default: 150 300)")  # fmt: skip
    add("--halves", type=int, default=3, help="halves of the names, drawn by seeds from 0 on")
    add("--output", default="output/reject")
    with cli_errors():
        run(parser.parse_args())


if __name__ == "__main__":
    main()
