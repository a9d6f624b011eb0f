#!/usr/bin/env python3
"""What exported models cost and keep: onnxruntime and OpenVINO against eager PyTorch, in one run.

    python tools/benchmark/runtime.py

The embedded model segments the frozen sample of StickerScenes by all its class names. For each way
the share of pixels with PyTorch's label, the mIoU, the seconds, and the ratio of PyTorch's seconds
over its own are printed. The ways take turns image by image, with the same number of threads.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import numpy as np
import onnx
import onnxruntime
import openvino
import torch

from ovseg import Predictor
from ovseg.data.datasets import dataset_classes, ignore_label, load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.errors import Parser, cli_errors
from ovseg.evaluation import new_confusion, scores, update_confusion
from ovseg.export.onnx_files import save_onnx, with_precision
from ovseg.export.write import ExportOptions, export_model
from ovseg.runtime import Predictor as Exported
from ovseg.runtime.folder import GRAPHS
from ovseg.utils.images import read_image

TORCH = "PyTorch, eager"


class OnOpenVino(Exported):
    """The same folder on OpenVINO."""

    def _graph(self, name: str) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
        options = {"INFERENCE_NUM_THREADS": self._threads, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.compile_model(str(self.folder.path / GRAPHS[name]), "CPU", options)
        return lambda inputs: list(compiled(dict(inputs)).values())


def smaller(folder: Path, precision: str) -> Path:
    """A copy of an export with other weights."""
    target = folder.with_name(precision)
    shutil.copytree(folder, target)
    for file in folder.glob("*.onnx"):
        save_onnx(with_precision(onnx.load(str(file)), precision), target / file.name)
    return target


def megabytes(folder: Path) -> float:
    """The size of an export's graphs."""
    return sum(file.stat().st_size for file in folder.glob("*.onnx")) / 1e6


def run(args: argparse.Namespace, folder: Path) -> None:
    """Print the comparison."""
    torch.set_num_threads(args.threads)
    predictor = Predictor.from_pretrained("tiny", device="cpu")
    whole = folder / "fp32"
    if args.exported:
        shutil.copytree(args.exported, whole)
    else:
        export_model(predictor.cfg, predictor.model, whole, ExportOptions())
    folders = {"fp32": whole, **{kind: smaller(whole, kind) for kind in ("fp16", "int8")}}
    options: dict[str, Any] = dict(threads=args.threads, check=False)
    ways: dict[str, Any] = {TORCH: predictor} | {
        f"onnxruntime {kind}": Exported(place, **options) for kind, place in folders.items()
    }
    ways["OpenVINO fp32"] = OnOpenVino(whole, **options)
    names, ignored = dataset_classes([args.dataset]), ignore_label(args.dataset)
    examples = load_dataset(args.dataset)[: args.images]
    confusions = {way: new_confusion(len(names)) for way in ways}
    seconds, same, pixels = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0), 0
    for way in ways.values():  # loads the graphs and encodes the words
        way(read_image(examples[0]["file_name"]), names)
    for example in examples:
        image, truth = read_image(example["file_name"]), read_truth(example)
        of_torch = None
        for name, way in ways.items():
            began = time.perf_counter()
            labels = way(image, names).labels
            seconds[name] += time.perf_counter() - began
            of_torch = labels if of_torch is None else of_torch
            same[name] += int((labels == of_torch).sum())
            update_confusion(confusions[name], labels.astype(np.int64), truth, ignored)
        pixels += image.shape[0] * image.shape[1]
    print(
        f"{args.dataset}, {len(examples)} images, {len(names)} classes; {platform.machine()}, "
        f"{args.threads} threads each; torch {torch.__version__}, onnxruntime "
        f"{onnxruntime.__version__}, OpenVINO {openvino.__version__}"
    )
    for kind, place in folders.items():
        print(f"graphs in {kind}: {megabytes(place):.1f} MB")
    for name in ways:
        print(
            f"{name:18s} same labels {100 * same[name] / pixels:6.2f} %, mIoU "
            f"{100 * scores(confusions[name]).miou:5.2f}, {seconds[name]:6.1f} s, "
            f"x {seconds[TORCH] / seconds[name]:.2f}"
        )


def main() -> None:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--dataset", default="stickerscenes_frozen")
    parser.add_argument("--images", type=int, default=100, help="the first so many (default: 100)")
    parser.add_argument("--exported", help="folder of an export in fp32; default: it is made anew")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    with cli_errors():
        args = parser.parse_args()
        with TemporaryDirectory() as folder:
            run(args, Path(folder))


if __name__ == "__main__":
    main()
