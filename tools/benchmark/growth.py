#!/usr/bin/env python3
"""How time and memory of the assembly grow with classes, image size and proposals, and those of a
whole image with the batch.

    python tools/benchmark/growth.py --output growth.png
    python tools/benchmark/growth.py --only batch

What follows CLIP: class probabilities and masks to the label of every pixel. One quantity grows at
a time, the others stay at 150 classes, 0.34 megapixels and 100 proposals. Of a batch
(SOLVER.TEST_IMS_PER_BATCH) it is all that the embedded model does, and an image's share of it.

Each measurement is a process of its own; memory is how far its size in memory rises above that
before the call. Time is that of the processor, so that other work on the machine matters little. It
needs Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import torch
import torch.nn.functional as F
from tabulate import tabulate
from tqdm import tqdm

from ovseg.config import setup_cfg
from ovseg.data.mapper import resize_short_side, test_size
from ovseg.engine.trainer import load_model
from ovseg.errors import Parser, cli_errors
from ovseg.modeling.segmentation import label_map
from ovseg.structures import PartialScores
from ovseg.utils.images import read_image
from ovseg.utils.io import atomic_path

IMAGE = Path("resources/samples/flamingo.jpg")
BASE = {"classes": 150, "megapixels": 0.34, "proposals": 100}
GROWING: dict[str, tuple[float, ...]] = {
    "classes": (1, 10, 50, 150, 400, 847, 2000),
    "megapixels": (0.3, 1, 3, 6, 12),
    "proposals": (10, 50, 100, 200),
    "batch": (1, 2, 4, 8),
}


def measure(name: str, value: float) -> tuple[float, float]:
    """Seconds of the processor and MB, where one quantity has a value."""
    if name == "batch":
        return measure_batch(int(value))
    return measure_labels(**{**BASE, name: value})


def measure_labels(classes: float, megapixels: float, proposals: float) -> tuple[float, float]:
    """Seconds of the processor and MB of one label map, of an image of 3 : 4."""
    generator = torch.Generator().manual_seed(0)
    # a few likely classes for each proposal, and smooth masks of the size that the model works on
    probs = (4 * torch.randn(int(proposals), int(classes), generator=generator)).softmax(dim=-1)
    logits = 8 * torch.randn(1, int(proposals), 10, 13, generator=generator) - 8
    masks = F.interpolate(logits, size=(512, 683), mode="bicubic")[0].sigmoid()
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    size = (height, round(height * 4 / 3))
    part = PartialScores(probs, masks)
    label_map([part], (64, 64))  # first calls allocate
    return spent(lambda: label_map([part], size))


@torch.inference_mode()
def measure_batch(batch: int) -> tuple[float, float]:
    """Seconds of the processor and MB for each of so many images that go through the embedded model
    together."""
    options = ["MODEL.WEIGHTS", "ovseg://ovseg_tiny.pth", "MODEL.DEVICE", "cpu"]
    cfg = setup_cfg("configs/ovseg_tiny.yaml", options)
    model = load_model(cfg)
    image = resize_short_side(read_image(IMAGE), *test_size(cfg))
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    inputs = {"image": pixels, "class_names": ["flamingo", "forest", "water"], "output": "labels"}
    model([inputs])  # the text features, and what first calls allocate
    seconds, megabytes = spent(lambda: model([inputs] * batch))
    return seconds / batch, megabytes / batch


def spent(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the processor and MB of a call."""
    give_back()
    begin_peak()
    before = memory("VmRSS")
    began = time.process_time()
    call()
    seconds = time.process_time() - began
    return seconds, memory("VmHWM") - before


def give_back() -> None:
    """Give what is free back to the system, so that what is then used is seen."""
    with suppress(OSError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def begin_peak() -> None:
    """Let the highest memory that the system tells be that from now on."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def memory(name: str) -> float:
    """MB of this process: "VmRSS" now, "VmHWM" at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[name].split()[0]) / 1024


def run(args: argparse.Namespace) -> None:
    """Print the table and draw the chart."""
    points = [(name, value) for name in args.only or GROWING for value in GROWING[name]]
    torch.set_num_threads(1)  # threads do not survive a fork
    fresh = multiprocessing.get_context("fork")
    rows: list[tuple[str, float, float, float]] = []
    for name, value in tqdm(points, disable=None):
        with ProcessPoolExecutor(1, mp_context=fresh) as process:
            found = process.submit(measure, name, value).result()
        rows.append((name, value, *found))
    print(f"torch {torch.__version__}, one thread")
    headers = ["grows", "value", "CPU seconds", "MB"]
    print(tabulate(rows, headers=headers, floatfmt=("", "g", ".2f", ".0f"), tablefmt="pipe"))
    if args.output:
        chart(rows, args.output)


def chart(rows: list[tuple[str, float, float, float]], output: Path) -> None:
    """Draw time and memory against each quantity, on axes that show straight growth as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    names = list(dict.fromkeys(row[0] for row in rows))
    panels = figure.subplots(2, len(names), squeeze=False)
    for column, name in enumerate(names):
        values = [row for row in rows if row[0] == name]
        for line, (place, label) in enumerate(((2, "CPU seconds"), (3, "MB"))):
            axes = panels[line][column]
            axes.plot([row[1] for row in values], [row[place] for row in values], marker="o")
            axes.set_ylim(bottom=0)
            axes.set_xlabel(name)
            axes.set_ylabel(label)
            axes.grid(alpha=0.3)
    with atomic_path(output) as temporary:
        figure.savefig(temporary, dpi=100)


def main() -> None:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(GROWING), help="what grows")
    parser.add_argument("--output", type=Path, metavar="PNG", help="the chart")
    with cli_errors():
        run(parser.parse_args())


if __name__ == "__main__":
    main()
