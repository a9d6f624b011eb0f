#!/usr/bin/env python3
"""Make small archives in the layouts and formats of the real ones, to try preparation on.

    python tools/make_sample_archives.py output/archives

writes COCO-Stuff, ADE20K-150, ADE20K-Full, Pascal Context and Pascal VOC, a few images each, as if
the downloaded archives had been unpacked there. The images are patches of colour with noise.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from ovseg.data.class_lists import load_class_list
from ovseg.errors import Parser, UserError, cli_errors

SPLITS = ("train", "val")
#: where archives lie
VOC = Path("VOCdevkit/VOC2012")
FULL = Path("ADE20K_2021_17_01")
STREET = FULL / "images/ADE/validation/urban/street"
#: (height, width) of the images of a split, in turn
SIZES = ((72, 96), (90, 64), (80, 80))
#: ADE20K-Full's: two are to be made smaller, of the third one side is short enough
LARGE_SIZES = ((560, 701), (650, 530), (400, 600))


def _patches(
    rng: np.random.Generator, size: tuple[int, int], values: Sequence[int], count: int = 7
) -> np.ndarray:
    """int64 (H, W): every pixel has the value of the nearest of some random points."""
    points = (rng.random((count, 2)) * size).astype(np.float32)
    rows, columns = (np.arange(length, dtype=np.float32) for length in size)
    distances = [(rows[:, None] - y) ** 2 + (columns - x) ** 2 for y, x in points]
    return rng.choice(np.asarray(values), count)[np.argmin(distances, axis=0)]


def _write_jpeg(path: Path, rng: np.random.Generator, numbers: np.ndarray) -> None:
    """An image with a colour for each number, and noise."""
    colours = np.stack([numbers * k % 224 for k in (37, 101, 173)], axis=-1).astype(np.uint8)
    noisy = colours + rng.integers(0, 32, colours.shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy).save(path, quality=90)


def _write_png(path: Path, numbers: np.ndarray, palette: bool = False) -> None:
    """A grey PNG of 8 bit, or one of VOC's kind with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers.astype(np.uint8))
    if palette:
        image = image.convert("P")
        image.putpalette([(index * k) % 256 for index in range(256) for k in (97, 31, 193)])
        image.putdata(numbers.astype(int).ravel().tolist())
    image.save(path)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_coco_stuff(root: Path) -> None:
    """Pixels hold the category id - 1; 255 is nothing."""
    rng = np.random.default_rng(1)
    values = [number - 1 for number in load_class_list("coco_stuff_171").source_ids] + [255] * 20
    for first, split in enumerate(("train2017", "val2017")):
        for index, size in enumerate(SIZES):
            name = f"{1000 * first + index + 9:012d}"
            numbers = _patches(rng, size, values)
            _write_jpeg(root / "coco" / split / f"{name}.jpg", rng, numbers)
            _write_png(root / "coco" / "stuffthingmaps" / split / f"{name}.png", numbers)


def write_ade20k(root: Path) -> None:
    """Pixels hold 1..150; 0 is nothing."""
    rng = np.random.default_rng(2)
    ade = root / "ADEChallengeData2016"
    for split, folder in zip(SPLITS, ("training", "validation"), strict=True):
        for index, size in enumerate(SIZES):
            name = f"ADE_{split}_{index + 1:08d}"
            numbers = _patches(rng, size, range(151))
            _write_jpeg(ade / "images" / folder / f"{name}.jpg", rng, numbers)
            _write_png(ade / "annotations" / folder / f"{name}.png", numbers)


def write_ade20k_full(root: Path) -> None:
    """Red and green hold the object's index, blue the instance; a pickle lists the images."""
    rng = np.random.default_rng(3)
    classes = load_class_list("ade20k_full_847")
    # 0 is nothing, 7 and 3000 are objects that are none of the classes
    values = [*classes.source_ids, *[0, 7, 3000] * 40]
    folders, names = [], []
    for split, part in zip(SPLITS, ("training", "validation"), strict=True):
        for index, size in enumerate(LARGE_SIZES):
            folder = f"ADE20K_2021_17_01/images/ADE/{part}/urban/street"
            name = f"ADE_{split}_{index + 1:08d}"
            numbers = _patches(rng, size, values, count=12)
            _write_jpeg(root / folder / f"{name}.jpg", rng, numbers)
            segmentation = np.stack(
                # the unit's digit of red says nothing
                [numbers // 256 * 10 + 3, numbers % 256, rng.integers(0, 9, numbers.shape)],
                axis=-1,
            )
            Image.fromarray(segmentation.astype(np.uint8)).save(root / folder / f"{name}_seg.png")
            _write_lines(root / folder / f"{name}.json", ["{}"])
            folders.append(folder)
            names.append(f"{name}.jpg")
    index_of_images = {
        "filename": names,
        "folder": folders,
        "scene": ["street"] * len(names),
        "objectnames": list(classes.names),
        "objectPresence": np.ones((len(classes), len(names)), dtype=np.uint8),
        "proportionClassIsPart": np.linspace(0, 1, len(classes)),
        "description": {"filename": "array of length N with the image file names"},
    }
    with (root / "ADE20K_2021_17_01" / "index_ade20k.pkl").open("wb") as file:
        pickle.dump(index_of_images, file)


def write_pascal_context(root: Path) -> None:
    """MATLAB files hold 1..459 in LabelMap; 0 is nothing."""
    rng = np.random.default_rng(4)
    voc = root / "VOCdevkit" / "VOC2010"
    many, few = (load_class_list(f"pascal_context_{count}").names for count in (459, 59))
    _write_lines(voc / "labels.txt", [f"{i}: {name}" for i, name in enumerate(many, 1)])
    _write_lines(voc / "59_labels.txt", [f"{i}: {name}" for i, name in enumerate(few, 1)])
    # half of the patches are of the 59 classes
    values = [0] * 30 + list(range(1, 460)) + [many.index(name) + 1 for name in few] * 8
    ids: dict[str, list[str]] = {"train": [], "val": []}
    for year, split in enumerate(SPLITS, 2008):
        for index, size in enumerate(SIZES):
            name = f"{year}_{index + 1:06d}"
            numbers = _patches(rng, size, values)
            _write_jpeg(voc / "JPEGImages" / f"{name}.jpg", rng, numbers)
            (voc / "trainval").mkdir(exist_ok=True)
            scipy.io.savemat(
                voc / "trainval" / f"{name}.mat",
                {"LabelMap": numbers.astype(np.uint16)},
                do_compression=True,
            )
            ids[split].append(name)
    _write_lines(voc / "ImageSets" / "Main" / "train.txt", ids["train"])
    _write_lines(voc / "pascalcontext_val.txt", ids["val"])


def write_voc(root: Path) -> None:
    """Pixels hold 1..20; 0 is background, 255 the border of objects."""
    rng = np.random.default_rng(5)
    voc = root / "VOCdevkit" / "VOC2012"
    for year, split in enumerate(SPLITS, 2008):
        ids = []
        for index, size in enumerate(SIZES):
            name = f"{year}_{index + 1:06d}"
            numbers = _patches(rng, size, [*range(21), 0, 0, 255])
            _write_jpeg(voc / "JPEGImages" / f"{name}.jpg", rng, numbers)
            # the augmented label maps are grey, VOC's own have a palette
            path = voc / "SegmentationClassAug" / f"{name}.png"
            _write_png(path, numbers, palette=index % 2 == 0)
            ids.append(name)
        _write_lines(voc / "ImageSets" / "Segmentation" / f"{split}.txt", ids)


ARCHIVES: dict[str, Callable[[Path], None]] = {
    "coco_stuff": write_coco_stuff,
    "ade20k": write_ade20k,
    "ade20k_full": write_ade20k_full,
    "pascal_context": write_pascal_context,
    "voc": write_voc,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line.

    Raises:
        UserError: the folder holds something already.
    """
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="where to write; made when it is not there")
    folder = parser.parse_args(arguments).folder
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"folder {str(folder)!r} is not empty; name a new one, so that no data set is touched"
        )
    for write in ARCHIVES.values():
        write(folder)
    print(f"{len(ARCHIVES)} archives are in {folder}: DETECTRON2_DATASETS={folder}")


if __name__ == "__main__":
    with cli_errors():
        main()
