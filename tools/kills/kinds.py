"""The runs that kill_runs.py kills: how each is started and goes on, and what its result is."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ovseg.data.stickerscenes import load_concepts
from ovseg.utils.digests import digest
from tools import make_sample_archives

ROOT = Path(__file__).resolve().parent.parent.parent
FROZEN = ROOT / "tests" / "data" / "stickerscenes"
TINY = ["--config-file", str(ROOT / "configs" / "ovseg_tiny.yaml")]
WEIGHTS = ["MODEL.WEIGHTS", "ovseg://ovseg_tiny.pth", "MODEL.DEVICE", "cpu"]
IMAGES = 24


@dataclass(frozen=True)
class Kind:
    """A run that can be stopped anywhere.

    Attributes:
        code: Python that calls the command's ``main`` with ``sys.argv[1:]``. It may let the command
            save more often than it does by default, so that short runs save too.
        arguments: of the command, for the folder of the data and that of the results; the same
            ones start a run and let it go on.
        result: what has to be the same in the end, by name; of a folder of results.
    """

    code: str
    arguments: Callable[[Path, Path], list[str]]
    result: Callable[[Path], dict[str, str]]


def write_data(folder: Path, with_pairs: bool) -> None:
    """What the runs work on: pictures with label maps, captions, a raw archive, and pairs."""
    names = [path.stem for path in sorted((FROZEN / "images").iterdir())[:IMAGES]]
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        (folder / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(FROZEN / kind / f"{name}.{suffix}", folder / kind)
    words = [concept.name for concept in load_concepts()]
    described = {
        "name": "killed", "images": str(folder / "images"), "labels": str(folder / "annotations"),
        "classes": words,
    }  # fmt: skip
    (folder / "data.yaml").write_text(json.dumps(described), encoding="utf-8")  # yaml, too
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption"])
        for place, name in enumerate(names):
            nouns = (words[(7 * place + step) % len(words)] for step in range(0, 40, 5))
            writer.writerow([f"{name}.jpg", ", ".join(nouns)])
    make_sample_archives.write_voc(folder / "raw")
    _multiply(folder / "raw" / "VOCdevkit" / "VOC2012", 300)
    if with_pairs:
        _write_pairs(folder)


def _write_pairs(folder: Path) -> None:
    """Pairs of ground truth, and the CLIP that is trained on them."""
    from open_clip_training import collect_pairs
    from ovseg.cli import weights

    collect_pairs.main(
        [*TINY, "--ground-truth", "stickerscenes_frozen", "--limit", str(IMAGES),
         "--output", str(folder / "pairs")]
    )  # fmt: skip
    checkpoint = str(ROOT / "resources" / "ovseg_tiny.pth")
    weights.main(
        ["swap", "take", checkpoint, str(folder / "clip.pt"), "--name", "ovseg-tiny-clip"]
    )  # fmt: skip


def _multiply(voc: Path, count: int) -> None:
    """So many images of each of a few, that a preparation takes some time."""
    listed = voc / "ImageSets" / "Segmentation" / "val.txt"
    ids = listed.read_text(encoding="utf-8").split()
    more = []
    for number in range(count):
        source, name = ids[number % len(ids)], f"2030_{number:06d}"
        for kind, suffix in (("JPEGImages", "jpg"), ("SegmentationClassAug", "png")):
            shutil.copy(voc / kind / f"{source}.{suffix}", voc / kind / f"{name}.{suffix}")
        more.append(name)
    listed.write_text("\n".join(more) + "\n", encoding="utf-8")


def _train(data: Path, output: Path) -> list[str]:
    return [
        *TINY, "--dataset", str(data / "data.yaml"), "--resume", *WEIGHTS,
        "OUTPUT_DIR", str(output), "DATASETS.TEST", "()", "SOLVER.MAX_ITER", "40",
        "SOLVER.CHECKPOINT_PERIOD", "4", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "5",
        "INPUT.CROP.SIZE", "(64,64)", "INPUT.SIZE_DIVISIBILITY", "64",
        "INPUT.MIN_SIZE_TRAIN", "(64,80)",
    ]  # fmt: skip


def _search(data: Path, output: Path) -> list[str]:
    return [
        *TINY, "--output", str(output), "--weights", "0:1:0.25", *WEIGHTS,
        "DATASETS.CUSTOM", f"('{data / 'data.yaml'}',)", "DATASETS.TEST", "('killed',)",
        "DATALOADER.NUM_WORKERS", "0",
    ]  # fmt: skip


def _mine(data: Path, output: Path) -> list[str]:
    return [
        *TINY, "--captions", str(data / "captions.csv"), "--images", str(data / "images"),
        "--output", str(output), "--format", "webdataset", "--opts", *WEIGHTS,
    ]  # fmt: skip


def _adapt(data: Path, output: Path) -> list[str]:
    goes_on = ["--resume"] if (output / "clip_resume.pt").is_file() else []
    return [
        "--clip", str(data / "clip.pt"), "--train-data", str(data / "pairs"),
        "--output", str(output / "clip.pt"), "--steps", "40", "--warmup", "2",
        "--batch-size", "8", "--device", "cpu", "--lr", "1e-4", *goes_on,
    ]  # fmt: skip


def _prepare(data: Path, output: Path) -> list[str]:
    output.mkdir(exist_ok=True)
    if not (output / "VOCdevkit").exists():
        shutil.copytree(data / "raw", output, dirs_exist_ok=True)
    return ["--root", str(output), "--split", "val", "--num-workers", "1"]


def _segment(data: Path, output: Path) -> list[str]:
    return [
        "--input", str(data / "images"), "--output", str(output), "--skip-existing",
        "--save", "overlay,labels,masks,coco", "--class-names", "cat", "dog", "grass", "sand",
    ]  # fmt: skip


def _label(data: Path, output: Path) -> list[str]:
    return [
        "--input", str(data / "images"), "--output", str(output), "--workers", "0",
        "--shard-size", "2", "--score-maps", "--class-names", "cat", "dog", "grass", "sand",
        "--opts", "MODEL.DEVICE", "cpu",
    ]  # fmt: skip


def _weights(path: Path) -> dict[str, str]:
    """A digest of each tensor and number of a checkpoint, by its place in it."""
    found: dict[str, str] = {}

    def look(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                look(f"{name}/{key}", inner)
        elif isinstance(value, list | tuple):
            for place, inner in enumerate(value):
                look(f"{name}/{place}", inner)
        elif isinstance(value, torch.Tensor):
            found[name] = digest([str(value.dtype), value.float().numpy().tobytes()])
        else:
            found[name] = repr(value)

    look(path.name, torch.load(path, weights_only=True))
    # paths of this run; when hooks were called last
    return {k: v for k, v in found.items() if "settings" not in k and "hooks" not in k}


def _training_result(output: Path) -> dict[str, str]:
    lines = (output / "metrics.json").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({row["iteration"] for row in rows}) == len(rows)
    return _weights(output / "model_final.pth") | {"metrics": str(len(rows))}


def _files(*patterns: str) -> Callable[[Path], dict[str, str]]:
    """Digests of all files that match."""

    def result(output: Path) -> dict[str, str]:
        files = [path for pattern in patterns for path in output.rglob(pattern)]
        return {str(path.relative_to(output)): digest([path.read_bytes()]) for path in files}

    return result


def _adaptation_result(output: Path) -> dict[str, str]:
    history = json.loads((output / "clip_history.json").read_text(encoding="utf-8"))
    return _weights(output / "clip.pt") | {"losses": repr(history["losses"])}


def _search_result(output: Path) -> dict[str, str]:
    document = json.loads((output / "search.json").read_text(encoding="utf-8"))
    return {"search.json": json.dumps(document["data sets"], sort_keys=True)}


_OFTEN = (
    "from ovseg.engine import resumable as r; "
    "r.resumable_pass.__kwdefaults__.update(save_every=0.5)"
)
_NOUNS = (
    "from open_clip_training.mining import sources as s, collect as c; c.IMAGES_A_PART = 3; "
    "s.load_tagger = lambda _: None; "
    "s.nouns_of_captions = lambda captions, *_: [text.split(', ') for text in captions]"
)
KINDS = {
    "training": Kind("from ovseg.cli.train import main", _train, _training_result),
    "search": Kind(f"{_OFTEN}; from ovseg.cli.search import main", _search, _search_result),
    "mining": Kind(
        f"{_NOUNS}; from open_clip_training.collect_pairs import main",
        _mine,
        _files("pairs.csv", "summary.json", "crops/**/*.png", "*.tar"),
    ),
    "clip training": Kind(
        "from open_clip_training.adaptation import loop; loop.SAVE_SECONDS = 0.2; "
        "from open_clip_training.train import main",
        _adapt,
        _adaptation_result,
    ),
    "preparation": Kind(
        "sys.path.insert(0, 'datasets'); import prepare_voc_sem_seg as p; "
        "from ovseg.data.preparation.command import prepare; "
        "main = lambda args: sys.exit(prepare(p.__doc__, p.plan, args))",
        _prepare,
        _files("annotations_detectron2/**/*.png"),
    ),
    "segmentation": Kind(
        "from ovseg.cli.segment import main", _segment, _files("*.png", "*.jpg", "coco.json")
    ),
    "labelling": Kind(
        "from ovseg.cli.label import main", _label, _files("labels-*", "manifest.json", "done/*")
    ),
}
