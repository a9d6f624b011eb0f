#!/usr/bin/env python3
"""`ovseg label` on many small images: images a second by workers, and memory over a long run.

    python tools/benchmark/labelling.py
    python tools/benchmark/labelling.py --memory 5000

The embedded model on images of 64 x 48 pixels, resized to 32. Each worker has one
core. The time does not count until the first shard is done: loading models and starting Ray. For
memory CLIP is left out, which takes most of the time and holds nothing from image to image.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

from ovseg.errors import Parser, UserError, cli_errors

SHARD = 20
WORDS = ["grass", "brick wall", "water"]


def write_pictures(folder: Path, count: int) -> None:
    """Images of noise, each another."""
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.png")


def start(photos: Path, output: Path, workers: int, *more: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    command = [
        sys.executable, "-m", "ovseg", "label", "--class-names", *WORDS, "--input", str(photos),
        "--output", str(output), "--shard-size", str(SHARD), "--workers", str(workers),
        "--cpus-per-worker", "1", "--opts", "MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "32",
        *more,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(f"{output}.log", "wb") as log:
        return subprocess.Popen(command, env=environment, stderr=log)


def resident(process: int) -> float:
    """Memory of a process in MiB, as Linux tells it; 0 when it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_speed(photos: Path, folder: Path, counts: list[int]) -> list[list[object]]:
    """Rows: workers, images a second, ratio to the first."""
    rows: list[list[object]] = []
    for workers in counts:
        output = folder / f"workers-{workers}"
        run = start(photos, output, workers)
        done = output / "done"
        while run.poll() is None and not (done.is_dir() and any(done.iterdir())):
            time.sleep(0.01)
        if not done.is_dir():
            raise UserError(Path(f"{output}.log").read_text().splitlines()[-1])
        first, before = time.perf_counter(), len(list(done.iterdir()))
        total = sum(1 for _ in photos.iterdir()) // SHARD
        while run.poll() is None and len(list(done.iterdir())) < total:
            time.sleep(0.01)
        rate = SHARD * (total - before) / (time.perf_counter() - first)
        if run.wait():
            raise SystemExit(run.returncode)
        name = f"{workers} with Ray" if workers else "this process"
        rows.append([name, rate, rate / float(str(rows[0][1])) if rows else 1.0])
    return rows


def measure_memory(photos: Path, folder: Path) -> list[list[object]]:
    """Rows: images done, resident memory in MiB of the one process."""
    run = start(photos, folder / "memory", 0, "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE", "False")
    done, rows, step = folder / "memory" / "done", list[list[object]](), 0
    total = sum(1 for _ in photos.iterdir())
    while run.poll() is None:
        images = SHARD * len(list(done.iterdir())) if done.is_dir() else 0
        if images >= step * total // 10 and images:
            rows.append([images, resident(run.pid)])
            step = images * 10 // total + 1
        time.sleep(0.05)
    if run.returncode:
        raise SystemExit(run.returncode)
    return rows


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=int, default=400, help="for each speed; default: 400")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--memory", type=int, metavar="IMAGES",
                        help="measure memory over so many, and no speed")  # fmt: skip
    return parser


def main() -> None:
    """Print the tables."""
    with cli_errors(), tempfile.TemporaryDirectory() as scratch:
        args = build_parser().parse_args()
        folder, photos = Path(scratch), Path(scratch, "photos")
        photos.mkdir()
        write_pictures(photos, args.memory or args.images)
        images = args.memory or args.images
        print(f"torch {torch.__version__}, {os.cpu_count()} cores, {images} images")
        if args.memory:
            print(tabulate(measure_memory(photos, folder), ["images", "MiB"], floatfmt=".0f"))
        else:
            rows = measure_speed(photos, folder, args.workers)
            print(tabulate(rows, ["workers", "images/s", "ratio"], floatfmt=".2f"))


if __name__ == "__main__":
    main()
