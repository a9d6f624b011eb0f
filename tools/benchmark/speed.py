#!/usr/bin/env python3
"""What each part of an image takes in every mode: time and memory, in one run and in turns.

    python tools/benchmark/speed.py --accuracy accuracy.json --output speed.json
    python tools/benchmark/speed.py --pick fast fastest "fastest, int8" --repeat 3

R101c + ViT-B/16 with random weights on one image. Random weights propose nothing sensible, so the
proposals are made up: of 100 as many can show as modes.py found with trained ones (--accuracy),
else half.

"first image" is with class names that nobody has encoded; "next image" with those of the first.
Memory is the highest above what the process held before the image, weights included. It is known on
Linux alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import torch
from detectron2.modeling import build_model
from tabulate import tabulate
from tqdm import tqdm

from ovseg import OVSeg
from ovseg.config import setup_cfg
from ovseg.data.class_lists import load_class_list
from ovseg.errors import Parser, cli_errors
from ovseg.utils.hardware import processor
from ovseg.utils.io import write_json

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
from tools.benchmark.growth import begin_peak, give_back, memory
from tools.benchmark.modes import (
    ADAPTER,
    EXACT,
    PRECISION,
    add_modes,
    chosen_modes,
    use,
)
from tools.benchmark.shapes import made_up

#: what an image takes, in the order of the work
PARTS = ("proposals", "crops", "CLIP", "assembly")


class Watch:
    """Adds up the time of parts; one inside another counts for itself alone."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds."""
        self._clock = clock
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs in here is this part's."""
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def _turn(self) -> None:
        now = self._clock()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


@contextmanager
def watching(owner: Any, name: str, watch: Watch, part: str) -> Iterator[None]:
    """Within this, calls of a method are a part of their own."""
    method = getattr(owner, name)

    def timed(*args: Any, **options: Any) -> Any:
        with watch.part(part):
            return method(*args, **options)

    setattr(owner, name, timed)
    try:
        yield
    finally:
        delattr(owner, name)


def one_image(
    model: OVSeg, inputs: dict[str, Any], visible: float, clock: Callable[[], float]
) -> dict[str, float]:
    """The seconds of each part of an image, a share of whose proposals can show; the crops that
    CLIP saw; and MB of memory.
    """
    give_back()
    before = memory("VmRSS")
    begin_peak()
    watch = Watch(clock)
    text = model.text(model.vocabulary(inputs))
    with watch.part("proposals"):
        regions = model.propose([inputs])[0]
    peak = memory("VmHWM")
    regions = made_up(regions, max(1, round(visible * len(regions.masks))))
    begin_peak()  # what making them up took is none of the model's
    with (
        watching(model.clip_adapter, "encode_crops", watch, "CLIP"),
        watching(model.crop_encoder, "_crops", watch, "crops"),
        watching(model, "_encode_together", watch, "CLIP"),
        watch.part("crops"),
    ):
        regions = model.encode_regions(regions)
        classified = model.classify(regions, text)
    with watch.part("assembly"):
        part = model.partial_scores(regions, classified, text.vocabulary)
        model.assemble(inputs, [part], regions.image.shape[-2:])
    assert regions.crops is not None
    encoded = int(regions.crops.encoded.sum()) if model.crops_too else 0
    return {"crops seen": encoded, **watch.seconds, "MB": max(peak, memory("VmHWM")) - before}


def text_seconds(model: OVSeg, inputs: dict[str, Any], clock: Callable[[], float]) -> float:
    """Seconds for the text features of class names that are new."""
    model.clip_adapter.text_cache.clear()
    began = clock()
    model.text(model.vocabulary(inputs))
    return clock() - began


@torch.inference_mode()
def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time every mode on one image, in turns, and print the table."""
    shares = json.loads(Path(args.accuracy).read_text())["modes"] if args.accuracy else {}
    untrained = ["MODEL.WEIGHTS", "", f"{ADAPTER}CLIP_PRETRAINED", ""]
    untrained += [f"{ADAPTER}TEXT_CACHE", "False"]
    cfg = setup_cfg(args.config_file, [*untrained, *args.opts])
    model: Any = build_model(cfg).eval()
    words = list(load_class_list("ade20k_full_847").names)[: args.classes]
    image = torch.randint(0, 256, (3, *args.size)).to(torch.uint8)
    inputs: dict[str, Any] = {"image": image, "class_names": words, "output": "labels"}
    if args.output_size:
        inputs["height"], inputs["width"] = args.output_size
    clock = time.process_time if args.cpu_time else time.perf_counter
    modes = chosen_modes(args)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in modes}
    texts: list[float] = []
    use(model, cfg, {"REGION_ENCODER": "shared"})
    model.text(model.vocabulary({**inputs, "class_names": words[:1]}))
    one_image(model, inputs, 0.5, clock)  # allocates
    for _ in tqdm(range(args.repeat), desc="turns", disable=None):
        texts.append(text_seconds(model, inputs, clock))
        for name, keys in tqdm(modes.items(), leave=False, disable=None):
            prepare(model, cfg, keys)
            visible = shares.get(name, {}).get("crops", 50.0) / 100
            found[name].append(one_image(model, inputs, visible, clock))
    rows = table(found, statistics.median(texts))
    header = ["mode", *rows[EXACT]]
    body = [[name, *row.values()] for name, row in rows.items()]
    print(tabulate(body, header, tablefmt="pipe", floatfmt=".2f"))
    kind = "CPU seconds" if args.cpu_time else "seconds"
    height, width = args.output_size or args.size
    sizes = f"image {args.size[0]} x {args.size[1]}, labels {height} x {width}"
    print(f"{kind}; {hardware()}; {sizes}, {args.classes} classes")
    return {"hardware": hardware(), "size": list(args.size), "modes": rows}


def prepare(model: Any, cfg: Any, keys: Mapping[str, object]) -> None:
    """Put a model into a mode; the copy of CLIP in another precision is made beforehand."""
    use(model, cfg, keys)
    if PRECISION in keys:
        adapter, size = model.clip_adapter, model.clip_adapter.input_size
        adapter.image_features(torch.zeros(1, 3, *size), torch.ones(1, 1, *size))


def table(found: Mapping[str, list[dict[str, float]]], text: float) -> dict[str, dict[str, float]]:
    """The medians of each mode, and what follows from them."""
    rows: dict[str, dict[str, float]] = {}
    for name, turns in found.items():
        row = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
        peak = row.pop("MB")
        following = sum(row[part] for part in PARTS)
        rows[name] = {
            **row, "text": text, "first image": text + following, "next image": following,
            "MB": peak,
        }  # fmt: skip
    for row in rows.values():
        row["times as fast"] = rows[EXACT]["next image"] / row["next image"]
    return rows


def hardware() -> str:
    """What the figures were taken on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return f"{processor()[0]}, {threads}, torch {torch.__version__}"


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--config-file", default="configs/ovseg_R101c_vitB_bs32_120k.yaml",
        help="default: R101c + ViT-B/16")  # fmt: skip
    parser.add_argument("--size", type=int, nargs=2, default=(512, 672), metavar=("H", "W"),
        help="of the image in the model")  # fmt: skip
    parser.add_argument("--output-size", type=int, nargs=2, metavar=("H", "W"),
        help="of the labels; default: the same")  # fmt: skip
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--repeat", type=int, default=1, help="turns of each (default: 1)")
    parser.add_argument("--cpu-time", action="store_true",
        help="for a machine with other work, with OMP_NUM_THREADS=1")  # fmt: skip
    add_modes(parser)
    parser.add_argument("--accuracy", help="the file that modes.py accuracy wrote")
    parser.add_argument("--output", help="a JSON file")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config overrides")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure."""
    with cli_errors():
        args = build_parser().parse_args(arguments)
        result = measure(args)
        if args.output:
            write_json(args.output, result)


if __name__ == "__main__":
    main()
