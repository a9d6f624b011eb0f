#!/usr/bin/env python3
"""What the options of docs/options.md bring: its table.

    python tools/benchmark/options.py

Every image is encoded once, into a folder under --output, where a second call finds it. For each
option the setting with the best mIoU on --choose-on is reported on --report-on. Templates are
chosen by the images of --choose-on, without their ground truth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import numpy as np
import torch
from detectron2.config import CfgNode
from tqdm import tqdm

from ovseg import OVSeg
from ovseg.config import setup_cfg
from ovseg.data.datasets import class_groups, dataset_classes, ignore_label, load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.mapper import EvaluationMapper
from ovseg.engine.resumable import model_settings
from ovseg.engine.template_choice import TemplateCounter, best_templates
from ovseg.engine.trainer import load_model
from ovseg.errors import Parser, cli_errors
from ovseg.evaluation import group_miou, new_confusion, scores, update_confusion
from ovseg.modeling.clip import TemplateChoice, template_features
from ovseg.modeling.seen_classes import SeenClasses
from ovseg.structures import Classified, CropFeatures, Regions
from ovseg.utils.io import atomic_path
from ovseg.vocabulary import Vocabulary

OFF = "off"
WEIGHTS = (0.2, 0.3, 0.5, 0.65, 0.7, 0.8)
NUMBERS = (1, 2, 4, 7)
AREAS = (1e-4, 0.002, 0.005, 0.01, 0.02)
GROUPS = ("seen", "unseen", "stuff")

#: name of a data set, and how many of its images
Images = tuple[str, int]
Way = Callable[[OVSeg, Regions, Vocabulary], Classified]


def plain(model: OVSeg, regions: Regions, vocabulary: Vocabulary) -> Classified:
    """All options off."""
    return model.classify(regions, model.text(vocabulary))


def two_weights(seen: float, unseen: float) -> Way:
    """``CLIP_ENSEMBLE_WEIGHT`` and ``CLIP_ENSEMBLE_WEIGHT_UNSEEN``."""
    return lambda model, regions, words: model.classify(regions, model.text(words), seen, unseen)


def dropped(area: float) -> Way:
    """``TEST.MIN_CLASS_AREA``."""

    def way(model: OVSeg, regions: Regions, vocabulary: Vocabulary) -> Classified:
        model.min_class_area = area
        found = plain(model, regions, vocabulary)
        model.min_class_area = 0.0
        return found

    return way


def templates(choice: TemplateChoice) -> Way:
    """``BEST_TEMPLATES``."""
    known: dict[Vocabulary, torch.Tensor] = {}

    def way(model: OVSeg, regions: Regions, vocabulary: Vocabulary) -> Classified:
        if vocabulary not in known:
            clip, words = model.clip_adapter.clip_model, vocabulary.words
            known[vocabulary] = choice.mix(words, template_features(clip, words, choice.templates))
        text = replace(model.text(vocabulary), of_crops=known[vocabulary])
        return model.classify(regions, text)

    return way


@torch.inference_mode()
def encoded(
    cfg: CfgNode, model: OVSeg, images: Images, cache: Path
) -> Iterator[tuple[dict, Regions]]:
    """The first images of a data set, encoded; masks are kept in half precision."""
    name, count = images
    digest = hashlib.sha256(json.dumps(model_settings(cfg)).encode()).hexdigest()[:16]
    mapper = EvaluationMapper(cfg, name)
    for example in tqdm(load_dataset(name)[:count], desc=name, disable=None):
        file = cache / digest / name / f"{Path(example['file_name']).stem}.pt"
        if not file.is_file():
            (found,) = model.encode([mapper(example)])
            assert found.crops is not None
            parts = {
                "masks": found.masks.half(), "embeddings": found.embeddings,
                "features": found.crops.features, "valid": found.crops.valid,
            }  # fmt: skip
            with atomic_path(file) as path:
                torch.save(parts, path)
        saved = torch.load(file, weights_only=True)
        masks = saved["masks"].float()
        crops = CropFeatures(saved["features"], saved["valid"])
        inputs = {**example, "class_names": mapper.vocabulary}
        yield inputs, Regions(masks[0].expand(3, -1, -1), masks, saved["embeddings"], crops)


@torch.inference_mode()
def measure(
    cfg: CfgNode, model: OVSeg, images: Images, cache: Path, ways: Mapping[str, Way]
) -> dict[str, dict[str, float]]:
    """mIoU in percent of every way, over all classes and over groups."""
    name = images[0]
    names, ignored = dataset_classes([name]), ignore_label(name)
    confusion = {way: new_confusion(len(names)) for way in ways}
    for inputs, regions in encoded(cfg, model, images, cache):
        truth = read_truth(inputs)
        inputs |= {"height": truth.shape[0], "width": truth.shape[1]}
        found = [way(model, regions, inputs["class_names"]) for way in ways.values()]
        maps = model.label_maps(inputs, regions, found).numpy()
        for each, labels in zip(confusion.values(), maps, strict=True):
            update_confusion(each, labels, truth, ignored)
    results = {}
    for way, each in confusion.items():
        counted = scores(each)
        groups = group_miou(counted, class_groups(name))
        results[way] = {"all": 100 * counted.miou, **{g: 100 * groups[g] for g in GROUPS}}
    return results


def template_ways(cfg: CfgNode, model: OVSeg, images: Images, cache: Path) -> dict[str, Way]:
    """Best templates, chosen over the images of a data set."""
    words = tuple(dataset_classes([images[0]]))
    counter = TemplateCounter(model, words)
    for _, regions in encoded(cfg, model, images, cache):
        assert regions.crops is not None
        counter.add(regions.crops)
    arrays = counter.counts.arrays
    ways = {}
    for number in NUMBERS:
        found = best_templates(arrays["entropy"], arrays["crops"], number)
        best = {word: tuple(places) for word, places in zip(words, found, strict=True) if places}
        choice = TemplateChoice(model.clip_adapter.templates, best)
        ways[f"{number} templates"] = templates(choice)
    return ways


def run(args: argparse.Namespace) -> None:
    """Print the tables."""
    cfg = setup_cfg(args.config_file, ["MODEL.WEIGHTS", args.weights, "MODEL.DEVICE", "cpu"])
    model, cache = load_model(cfg), Path(args.output, "encoded")
    choosing, reporting = zip((args.choose_on, args.report_on), args.images, strict=True)
    model.seen_classes = SeenClasses.of_datasets(cfg.DATASETS.TRAIN)
    options: dict[str, dict[str, Way]] = {
        OFF: {OFF: plain},
        "two weights": {
            f"seen {seen}, unseen {unseen}": two_weights(seen, unseen)
            for seen in WEIGHTS
            for unseen in WEIGHTS
        },
        "best templates": template_ways(cfg, model, choosing, cache),
        "absent classes dropped": {f"area {area}": dropped(area) for area in AREAS},
    }
    everything = {name: way for ways in options.values() for name, way in ways.items()}
    dev = measure(cfg, model, choosing, cache, everything)
    best = {option: max(ways, key=lambda way: dev[way]["all"]) for option, ways in options.items()}
    reported = {way: everything[way] for way in best.values()}
    test = measure(cfg, model, reporting, cache, reported)
    for (title, count), results in ((choosing, dev), (reporting, test)):
        print(f"\n{title}, {count} images\n\n| setting | all | {' | '.join(GROUPS)} |")
        print("|---|--:|--:|--:|--:|")
        for way, row in results.items():
            print(f"| {way} | {' | '.join(f'{value:.2f}' for value in row.values())} |")
    print(f"\nchosen: {best}, numpy {np.__version__}, torch {torch.__version__}")


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
    add("--output", default="output/options")
    with cli_errors():
        run(parser.parse_args())


if __name__ == "__main__":
    main()
