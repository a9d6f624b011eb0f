#!/usr/bin/env python3
"""How long the web page takes to answer, all that it draws included: the table of docs/web.md.

    python tools/benchmark/web.py

Each line is the least of so many requests for one image of 512 x 512 pixels that is encoded
already, none made before: seconds on the clock, and of processor time, which other work on the
machine changes less. Sending the answer to a browser comes on top.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ovseg.errors import Parser, cli_errors
from ovseg.predictor import Predictor
from ovseg.utils.package_files import package_folder
from ovseg.web.handlers import AREAS, Handlers
from ovseg.web.models import Models
from ovseg.web.region_view import RegionView
from ovseg.web.tasks import Tasks

IMAGE = package_folder("resources") / "samples" / "flamingo.jpg"
NAMES = ["flamingo", "forest", "gravel", "water", "blue sky", "road"]


def requests(count: int) -> dict[str, Callable[[int], dict[str, Any]]]:
    """What changes in the number-th of ``count`` requests, by the name of the line."""
    return {
        "opacity": lambda number: {"opacity": number / count},
        "ensemble weight": lambda number: {"weight": (number + 0.5) / count},
        "reject": lambda number: {"reject": (number + 0.5) / count},
        "one new class name": lambda number: {"text": [*NAMES, f"word {number}"]},
        "four new class names": lambda number: {
            "text": [*NAMES, *(f"name {number} {place}" for place in range(4))]
        },
        "mask threshold": lambda number: {"threshold": (number + 0.5) / count},
    }


def main() -> None:
    """Print a line a kind of request."""
    parser = Parser(description=(__doc__ or "").split("\n", 1)[0])
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--repeat", type=int, default=20, help="requests of each kind")
    parser.add_argument("--model", default="tiny", help="a name, as for ovseg segment")
    args = parser.parse_args()
    predictor = Predictor.from_pretrained(args.model)
    with tempfile.TemporaryDirectory() as folder:
        handlers = Handlers(Tasks(Models({"model": lambda: predictor})), Path(folder))
        own = handlers.tasks.models.own_settings("model")
        view = RegionView(format="jpeg", render=False)
        view.GRADIO_CACHE = folder
        usual: dict[str, Any] = {
            "image": {"path": str(IMAGE), "orig_name": IMAGE.name}, "text": NAMES,
            "model": "model", "weight": own.slider_weight, "threshold": own.mask_threshold,
            "reject": own.reject, "opacity": 0.5, "tab": AREAS,
        }  # fmt: skip

        def ask(changes: dict[str, Any]) -> tuple[float, float]:
            values = {**usual, **changes}
            values["text"] = "\n".join(values["text"])
            began = time.perf_counter(), time.process_time()
            view.postprocess(handlers.segment(**values).regions)
            return time.perf_counter() - began[0], time.process_time() - began[1]

        def say(name: str, seconds: list[tuple[float, float]]) -> None:
            clock, processor = map(min, zip(*seconds, strict=True))
            print(f"{name:24s} {clock:.3f} s, {processor:.3f} s of processor time")

        say("encoding and segmenting", [ask({})])
        say("general words of reject", [ask({"reject": 1.0})])
        for name, changes in requests(args.repeat).items():
            say(name, [ask(changes(number)) for number in range(args.repeat)])
    machine = platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {machine}")


if __name__ == "__main__":
    with cli_errors():
        main()
