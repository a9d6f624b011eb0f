#!/usr/bin/env python3
"""How fast the preparation scripts are, against one plain pass over the same files.

    python tools/benchmark/preparation.py --files 400

Archives with pictures of the usual sizes are made up in a temporary folder. Each is prepared, and,
in turns with that, its files are decoded and encoded once in as many processes, which are started
beforehand: by Pillow with its defaults ("plain"), and by the codecs that preparation uses, with
their defaults ("same codecs"). A ratio above 1 says that preparation is faster. Nothing is
downloaded.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import multiprocessing
import os
import pickle
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from PIL import Image

# ovseg is imported where it is used: the processes of the plain passes need not wait for it


@dataclass(frozen=True)
class Archive:
    """One archive: how its files are made, and which the plain pass takes.

    Attributes:
        plan: module of ovseg.data.preparation.
        make: writes the sources of image ``name`` under a root.
        index: writes lists of images under a root.
        sources: pattern of the files to decode.
        outputs: what the plain pass writes for each, by suffix.
    """

    plan: str
    make: Callable[[Path, str], None]
    index: Callable[[Path, list[str]], None]
    sources: tuple[str, ...]
    outputs: Mapping[str, tuple[str, ...]]


def regions(seed: int, height: int, width: int, values: int) -> np.ndarray:
    """A label map with wavy regions, (H, W) of 1..values."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, values + 1, (9, 12)).astype(np.float32)
    wave = cv2.resize(rng.normal(size=(height // 8, width // 8, 2)).astype(np.float32),
                      (width, height), interpolation=cv2.INTER_CUBIC)  # fmt: skip
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    y = np.clip(rows / height * 9 + wave[..., 0] / 8, 0, 8).astype(int)
    x = np.clip(columns / width * 12 + wave[..., 1] / 8, 0, 11).astype(int)
    return coarse[y, x].astype(np.int64)


def photo(seed: int, height: int, width: int) -> Image.Image:
    """A picture with detail at several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cells in (6, 24, 96):
        grid = rng.normal(size=(cells, cells, 3)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 200 / cells**0.5
    return Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))


def _seed(name: str) -> int:
    return int(name[-6:])


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _lines(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names))


def make_coco(root: Path, name: str) -> None:
    """A grey label map and a photo of COCO's usual size."""
    numbers = regions(_seed(name), 480, 640, 10)
    _save(
        Image.fromarray(numbers.astype(np.uint8)), root / f"coco/stuffthingmaps/val2017/{name}.png"
    )
    _save(photo(_seed(name), 480, 640), root / f"coco/val2017/{name}.jpg")


def make_ade20k(root: Path, name: str) -> None:
    """The same of ADE20K-150's."""
    ade, numbers = root / "ADEChallengeData2016", regions(_seed(name), 512, 683, 150)
    _save(Image.fromarray(numbers.astype(np.uint8)), ade / f"annotations/validation/{name}.png")
    _save(photo(_seed(name), 512, 683), ade / f"images/validation/{name}.jpg")


def make_ade20k_full(root: Path, name: str) -> None:
    """A large photo and its objects in red and green."""
    folder = root / "ADE20K_2021_17_01/images/ADE/validation"
    numbers = regions(_seed(name), 1024, 1365, 3000)
    coded = np.stack([numbers // 256 * 10, numbers % 256, numbers % 7], axis=-1)
    _save(photo(_seed(name), 1024, 1365), folder / f"{name}.jpg")
    _save(Image.fromarray(coded.astype(np.uint8)), folder / f"{name}_seg.png")


def index_ade20k_full(root: Path, names: list[str]) -> None:
    """The pickle that lists the images."""
    folder = "ADE20K_2021_17_01/images/ADE/validation"
    index = {"folder": [folder] * len(names), "filename": [f"{name}.jpg" for name in names]}
    (root / "ADE20K_2021_17_01/index_ade20k.pkl").write_bytes(pickle.dumps(index))


def make_context(root: Path, name: str) -> None:
    """A MATLAB file and a photo."""
    voc = root / "VOCdevkit/VOC2010"
    (voc / "trainval").mkdir(parents=True, exist_ok=True)
    numbers = regions(_seed(name), 375, 500, 459).astype(np.uint16)
    scipy.io.savemat(voc / f"trainval/{name}.mat", {"LabelMap": numbers}, do_compression=True)
    _save(photo(_seed(name), 375, 500), voc / f"JPEGImages/{name}.jpg")


def index_context(root: Path, names: list[str]) -> None:
    """The lists of classes and of images."""
    from ovseg.data.class_lists import load_class_list

    voc = root / "VOCdevkit/VOC2010"
    classes = load_class_list("pascal_context_459").names
    _lines(voc / "labels.txt", [f"{number}: {name}" for number, name in enumerate(classes, 1)])
    _lines(voc / "pascalcontext_val.txt", names)


def make_voc(root: Path, name: str) -> None:
    """A grey label map and a photo of VOC's usual size."""
    voc = root / "VOCdevkit/VOC2012"
    numbers = regions(_seed(name), 375, 500, 20).astype(np.uint8)
    _save(Image.fromarray(numbers), voc / f"SegmentationClassAug/{name}.png")
    _save(photo(_seed(name), 375, 500), voc / f"JPEGImages/{name}.jpg")


def index_voc(root: Path, names: list[str]) -> None:
    """The list of images."""
    _lines(root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", names)


def _no_index(root: Path, names: list[str]) -> None:
    pass


_PNG = {".png": (".png",)}
ARCHIVES = {
    "COCO-Stuff 640 x 480": Archive("coco_stuff", make_coco, _no_index, ("**/*.png",), _PNG),
    "ADE20K-150 683 x 512": Archive("ade20k", make_ade20k, _no_index, ("**/*.png",), _PNG),
    "ADE20K-Full 1365 x 1024": Archive(
        "ade20k_full",
        make_ade20k_full,
        index_ade20k_full,
        ("**/*.jpg", "**/*.png"),
        {".jpg": (".jpg",), ".png": (".png",)},
    ),
    "Pascal Context 500 x 375": Archive(
        "pascal_context", make_context, index_context, ("**/*.mat",), {".mat": (".tif", ".png")}
    ),
    "VOC 500 x 375": Archive("voc", make_voc, index_voc, ("**/*.png",), _PNG),
}


def plain_pass(
    outputs: Mapping[str, tuple[str, ...]], same_codecs: bool, scratch: Path, path: Path
) -> None:
    """Decode one file and encode it, with no more ado."""
    cv2.setNumThreads(1)
    if path.suffix == ".mat":
        array = scipy.io.loadmat(path)["LabelMap"]
    else:
        with Image.open(path) as file:
            array = np.asarray(file)
    for suffix in outputs[path.suffix]:
        values = array.astype(np.uint8) if suffix == ".png" else array
        target = scratch / f"{path.stem}{suffix}"
        if same_codecs:
            cv2.imwrite(str(target), values[..., ::-1] if values.ndim == 3 else values)
        elif suffix == ".tif":
            Image.fromarray(values).save(target, compression="tiff_lzw")
        else:
            Image.fromarray(values).save(target)


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(archive: Archive, files: int, workers: int, repeat: int, pool: Pool) -> str:
    """Make an archive, time the three, and describe the result."""
    from ovseg.data.preparation.runner import run_jobs

    with tempfile.TemporaryDirectory() as folder:
        root, scratch = Path(folder, "archive"), Path(folder, "scratch")
        scratch.mkdir()
        names = [f"ADE_val_{number:08d}" for number in range(files)]
        pool.map(partial(archive.make, root), names)
        archive.index(root, names)
        sources = [path for pattern in archive.sources for path in root.glob(pattern)]
        jobs = importlib.import_module(f"ovseg.data.preparation.{archive.plan}").plan(root, "val")
        seconds: dict[str, list[float]] = {"ours": [], "plain": [], "same": []}
        for _ in range(repeat):
            for kind, same in (("plain", False), ("same", True)):
                work = partial(plain_pass, archive.outputs, same, scratch)
                seconds[kind].append(timed(partial(pool.map, work, sources, 4)))
            seconds["ours"].append(timed(lambda: run_jobs(jobs, workers, overwrite=True)))
    ours, plain, same_codecs = (statistics.median(seconds[k]) for k in ("ours", "plain", "same"))
    return f"{files / ours:12.0f} {plain / ours:12.2f} {same_codecs / ours:18.2f}"


def main() -> None:
    """The command line."""
    from ovseg.errors import Parser, cli_errors

    parser = Parser(__doc__)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--files", type=int, default=200, help="images an archive (default: 200)")
    parser.add_argument("--workers", type=int, default=cores, help="(default: one a core)")
    parser.add_argument("--repeat", type=int, default=3, help="passes; the median counts")
    with cli_errors():
        run(parser.parse_args())


def run(options: argparse.Namespace) -> None:
    """Print the table."""
    os.environ["TQDM_DISABLE"] = "1"
    logging.basicConfig(level=logging.WARNING)
    print(f"{platform.processor() or platform.machine()}, {options.workers} workers, "
          f"{options.files} images each")  # fmt: skip
    print(f"{'':26s} {'images a s':>12s} {'x plain':>12s} {'x same codecs':>18s}")
    # a forked process may wait for ever for threads that only its parent has
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for name, archive in ARCHIVES.items():
            result = measure(archive, options.files, options.workers, options.repeat, pool)
            print(f"{name:26s} {result}", flush=True)


if __name__ == "__main__":
    main()
