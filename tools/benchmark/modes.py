#!/usr/bin/env python3
"""What each faster mode costs in accuracy; speed.py says what it brings in speed.

    python tools/benchmark/modes.py accuracy --dataset stickerscenes_dev --output accuracy.json
    python tools/benchmark/modes.py chart --accuracy accuracy.json --speed speed.json --output a.png

accuracy: the embedded model segments a data set in every mode. Printed are the share of crops, the
mIoU over all, seen and unseen classes, and the share of pixels with the label of the exact mode.

chart: mIoU against the share of crops, or against the speed that speed.py measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import numpy as np
import torch
from detectron2.config import CfgNode
from tabulate import tabulate
from tqdm import tqdm

from ovseg import OVSeg
from ovseg.config import setup_cfg
from ovseg.config.speed import SPEEDS
from ovseg.data.datasets import class_groups, dataset_classes, ignore_label, load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.mapper import EvaluationMapper
from ovseg.engine.trainer import load_model
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.evaluation import group_miou, new_confusion, scores, update_confusion
from ovseg.evaluation.figures import new_figure, save_figure
from ovseg.modeling.build import region_parts
from ovseg.structures import CropFeatures, Regions
from ovseg.utils.io import write_json

ADAPTER = "MODEL.CLIP_ADAPTER."
EXACT = "exact"
GROUPS = ("all", "seen", "unseen")


def _crops(**keys: float) -> dict[str, object]:
    return {"CROPS": "visible", **{f"CROPS_{key.upper()}": value for key, value in keys.items()}}


def _preset(name: str) -> dict[str, object]:
    return {key.removeprefix(ADAPTER): value for key, value in SPEEDS[name].items()}


#: a key of MODEL besides those of MODEL.CLIP_ADAPTER
PRECISION = "PRECISION"
#: keys of MODEL.CLIP_ADAPTER, and MODEL.PRECISION, by the name of a mode
MODES: dict[str, dict[str, object]] = {
    EXACT: {},
    "fast": _preset("fast"),
    "fastest": _preset("fastest"),
    "visible": _crops(),
    "bf16": {PRECISION: "bf16"},
    "int8": {PRECISION: "int8"},
    "fast, int8": {**_preset("fast"), PRECISION: "int8"},
    "fastest, int8": {**_preset("fastest"), PRECISION: "int8"},
    "fastest, bf16": {**_preset("fastest"), PRECISION: "bf16"},
    "visible, 0.7 of the largest": _crops(tolerance=0.7),
    "visible, 0.9 of the largest": _crops(tolerance=0.9),
    "visible, second round": _crops(min_area=0.005, second_round=0.05),
    "visible, lent from IoU 0.5": _crops(borrow_iou=0.5),
    "visible, area 0.2 %": _crops(min_area=0.002),
    "visible, area 0.5 %": _crops(min_area=0.005),
    "visible, area 1 %": _crops(min_area=0.01),
    "visible, area 2 %, lent from IoU 0.9": _crops(min_area=0.02, borrow_iou=0.9),
}


@dataclass
class Count:
    """What was counted of a mode."""

    confusion: np.ndarray
    crops: int = 0
    valid: int = 0
    pixels: int = 0
    same: int = 0
    row: dict[str, float] = field(default_factory=dict)


def use(model: OVSeg, cfg: CfgNode, keys: Mapping[str, object]) -> None:
    """Let a model show CLIP its regions as ``keys`` of ``MODEL.CLIP_ADAPTER`` say."""
    adapter = cfg.MODEL.CLIP_ADAPTER.clone()
    adapter.defrost()
    for key, value in keys.items():
        if key != PRECISION:
            adapter[key] = value
    model.clip_adapter.precision = str(keys.get(PRECISION, cfg.MODEL.PRECISION))
    for name, part in region_parts(adapter, model.clip_adapter).items():
        setattr(model, name, part)


def with_features(model: OVSeg, regions: Regions, exact: CropFeatures) -> Regions:
    """Encoded regions whose crops need not be encoded again."""
    lowered = model.clip_adapter.precision != "fp32"
    if lowered or (model.shared_pass is not None and not model.crops_too):
        return model.encode_regions(regions)
    rows = exact.features.new_zeros((len(exact.valid), exact.features.shape[1]))
    rows[exact.valid] = exact.features
    crops = exact
    if model.crop_choice.visible_only:
        crops = CropFeatures.on_demand(exact.valid, rows[:0], lambda places: rows[places])
    found = replace(regions, crops=crops)
    if model.shared_pass is None:
        return found
    return replace(found, shared=model._encode_together(model.shared_pass, regions, None))


@torch.inference_mode()
def accuracy(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every mode on a data set."""
    cfg = setup_cfg(args.config_file, ["MODEL.WEIGHTS", args.weights, *args.opts])
    model = load_model(cfg)
    mapper = EvaluationMapper(cfg, args.dataset)
    classes, ignored = dataset_classes([args.dataset]), ignore_label(args.dataset)
    modes = chosen_modes(args)
    counts = {name: Count(new_confusion(len(classes))) for name in modes}
    examples = load_dataset(args.dataset)[: args.images]
    for example in tqdm(examples, desc=args.dataset, disable=None):
        inputs = {**mapper(example), "output": "labels"}
        use(model, cfg, {})
        text = model.text(model.vocabulary(inputs))
        regions = model.propose([inputs])[0]
        exact, truth, labels = model.encode_crops(regions), read_truth(example), {}
        for name, keys in modes.items():
            use(model, cfg, keys)
            encoded = with_features(model, regions, exact)
            classified = model.classify(encoded, text)
            labels[name] = model.label_maps(inputs, regions, [classified])[0].cpu().numpy()
            count = counts[name]
            update_confusion(count.confusion, labels[name], truth, ignored)
            if model.shared_pass is None or model.crops_too:
                assert encoded.crops is not None
                count.crops += int(encoded.crops.encoded.sum())
            count.valid += int(exact.valid.sum())
            count.same += int((labels[name] == labels[EXACT]).sum())
            count.pixels += truth.size
    groups = class_groups(args.dataset)
    for count in counts.values():
        result = scores(count.confusion)
        miou = {"all": result.miou, **group_miou(result, groups)}
        count.row = {
            "crops": 100 * count.crops / count.valid,
            **{name: 100 * float(miou[name]) for name in GROUPS if name in miou},
            "same labels": 100 * count.same / count.pixels,
        }
    rows = {name: count.row for name, count in counts.items()}
    header = ["mode", *rows[EXACT]]
    body = [[name, *row.values()] for name, row in rows.items()]
    print(tabulate(body, header, tablefmt="pipe", floatfmt=".2f"))
    print(f"{args.dataset}, {len(examples)} images; all in percent")
    return {"dataset": args.dataset, "images": len(examples), "modes": rows}


def chosen_modes(args: argparse.Namespace) -> dict[str, dict[str, object]]:
    """All modes, and one more with the keys of the command line.

    Raises:
        UserError: a key that is none.
    """
    modes = {name: MODES[name] for name in (SPEEDS if args.only else MODES)}
    if args.pick:
        unknown = [name for name in args.pick if name not in MODES]
        if unknown:
            raise UserError(f"--pick {unknown[0]!r} is no mode; choose from {', '.join(MODES)}")
        modes = {name: MODES[name] for name in dict.fromkeys([EXACT, *args.pick])}
    for number, text in enumerate(args.mode):
        keys: dict[str, object] = {}
        for pair in text.split(","):
            key, _, value = pair.partition("=")
            if not value:
                raise UserError(f"--mode {text!r}: give KEY=VALUE,KEY=VALUE")
            keys[key] = CfgNode._decode_cfg_value(value)
        modes[args.name[number] if number < len(args.name) else text] = keys
    return modes


def chart(accuracy_file: Path, speed_file: Path | None, output: Path) -> None:
    """Draw mIoU against speed, or without a file of speeds against the share of crops."""
    measured = json.loads(accuracy_file.read_text())
    timed = json.loads(speed_file.read_text())["modes"] if speed_file else None
    figure = new_figure(8, 4.2, dpi=110)
    axes: Any = figure.subplots()
    places = {
        name: (row["crops"] if timed is None else timed[name]["times as fast"], row["all"])
        for name, row in measured["modes"].items()
        if timed is None or name in timed
    }
    order = sorted(places, key=lambda name: places[name])
    for number, name in enumerate(order, 1):
        color = "tab:red" if name in SPEEDS else "tab:blue"
        axes.scatter(*places[name], s=24, color=color, label=f"{number}  {name}")
        axes.annotate(
            str(number), places[name], xytext=(4, 3), textcoords="offset points", fontsize=7
        )  # fmt: skip
    figure.legend(loc="outside right upper", fontsize=7, title="red: presets", title_fontsize=7)
    if timed is None:
        axes.set_xlabel("crops that CLIP sees, in percent of all")
    else:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} x")
        axes.set_xlabel("speed of a whole image (R101c + ViT-B/16, CPU)")
    axes.set_ylabel("mIoU in percent")
    axes.set_title(f"embedded model, {measured['dataset']}, {measured['images']} images", size=9)
    low, high = axes.get_ylim()
    axes.set_ylim(low - 1, high + 1)  # differences of one point mean little
    axes.grid(alpha=0.3)
    save_figure(figure, output)


def add_modes(parser: Parser) -> None:
    """The options by which :func:`chosen_modes` chooses."""
    parser.add_argument("--mode", action="append", default=[], metavar="KEY=VALUE,...",
        help="a further mode, of keys of MODEL.CLIP_ADAPTER")  # fmt: skip
    parser.add_argument("--name", action="append", default=[], help="of each --mode")
    parser.add_argument(
        "--only", action="store_true", help="of the modes only the presets and --mode"
    )
    parser.add_argument("--pick", nargs="*", help="of the modes only these (default: all)")


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("part", choices=("accuracy", "chart"))
    parser.add_argument("--config-file", default="configs/ovseg_tiny.yaml",
        help="default: the embedded model's")  # fmt: skip
    parser.add_argument("--weights", default="ovseg://ovseg_tiny.pth")
    parser.add_argument("--dataset", default="stickerscenes_frozen")
    parser.add_argument("--images", type=int, default=500, help="the first so many (default: 500)")
    add_modes(parser)
    parser.add_argument("--accuracy", help="of chart: the file that accuracy wrote")
    parser.add_argument("--speed", help="of chart: the file that speed.py wrote")
    parser.add_argument("--output", help="a JSON file, or the chart's picture")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config overrides")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or draw what was measured."""
    with cli_errors():
        args = build_parser().parse_args(arguments)
        if args.part == "chart":
            if not (args.accuracy and args.output):
                raise UserError("chart needs --accuracy and --output, and maybe --speed")
            speeds = Path(args.speed) if args.speed else None
            chart(Path(args.accuracy), speeds, Path(args.output))
            return
        result = accuracy(args)
        if args.output:
            write_json(Path(args.output), result)


if __name__ == "__main__":
    main()
