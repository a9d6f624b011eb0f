"""Collect mask-noun pairs from images with captions, or from ground-truth label maps.

    python open_clip_training/collect_pairs.py --config-file configs/ovseg_tiny.yaml \\
        --captions datasets/stickerscenes/captions_train.json \\
        --images datasets/stickerscenes/images/train --adjectives \\
        --output output/pairs --opts MODEL.WEIGHTS ovseg://ovseg_tiny.pth

A trained OVSeg proposes masks, the nouns come from the captions, and CLIP picks the best proposal
for each noun (paper section 3.2). The result is ready for open_clip_training/train.py and for
open_clip's own readers; open_clip_training/pairs_output.py says what is in it.

Several processes share the work when torchrun starts them, each on its GPU if there is one:

    torchrun --nproc-per-node 8 open_clip_training/collect_pairs.py ...

A stopped run goes on where it was when the same command is given again, and tries images again
that could not be read.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from open_clip_training.pairs_nouns import SPACY_MODEL
from open_clip_training.pairs_output import (
    compare_settings,
    merge_parts,
    part_path,
    plain_settings,
    read_json,
    with_digest,
    write_crops,
    write_json,
)
from open_clip_training.pairs_sources import UNREADABLE, CaptionSource, LabelSource, Source
from open_clip_training.run_state import check_ranges
from open_clip_training.train_processes import wait_for_all
from ovseg.config import setup_cfg
from ovseg.data.custom import register_custom
from ovseg.errors import UserError, cli_errors

logger = logging.getLogger("collect_pairs")
#: images whose pairs are recorded together
IMAGES_A_PART = 50


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, help="of the OVSeg that proposes; its size for inference")
    add("--captions", type=Path, help="COCO captions (.json), or a CSV with image and caption")
    add("--images", type=Path, help="folder of the images (default: that of --captions)")
    add("--captions-per-image", type=int, default=1, help="1, or 5 for all of COCO's")
    add("--ground-truth", metavar="DATASET", help="in place of captions: regions of its label maps")
    add("--output", type=Path, required=True, help="folder of the pairs")
    add("--min-area", type=float, default=0.002, help="least share of the image")
    add("--min-score", type=float, default=0.0, help="least probability of the noun, by CLIP")
    add("--min-objectness", type=float, default=0.0,
        help="proposals that MaskFormer holds less probably for anything are left out")  # fmt: skip
    add(
        "--adjectives", action="store_true", help='"polar bear", "tiled floor": keep what is before'
    )
    add("--min-noun-count", type=int, default=1, help="leave out nouns of fewer captions")
    add("--exclude-nouns", nargs="+", default=[], metavar="NOUN", help="leave these out")
    add("--spacy-model", default=SPACY_MODEL, help="an installed English pipeline of spaCy")
    add("--format", choices=("csv", "webdataset"), default="csv", help="webdataset: shards as well")
    add("--limit", type=int, help="only the first so many images")
    add("--seed", type=int, default=0, help="choice of captions and of the contact sheet")
    add("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE",
        help="override the config; last on the line")  # fmt: skip
    options = parser.parse_args(arguments)
    if (options.captions is None) == (options.ground_truth is None):
        raise UserError("give either --captions or --ground-truth")
    at_least_1 = ("captions_per_image", "min_noun_count", "limit")
    shares = ("min_area", "min_score", "min_objectness")
    check_ranges(options, dict.fromkeys(at_least_1, (1, math.inf)) | dict.fromkeys(shares, (0, 1)))
    return options


def main(arguments: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Collect as the command line says.

    Returns:
        The summary; None when another process makes it.

    Raises:
        UserError: an argument or the data cannot be used.
    """
    options = parse_arguments(arguments)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if not dist.is_torchelastic_launched():
        return collect(options, rank, world)
    # processes wait for each other, some much longer than the default allows
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    summary = collect(options, rank, world)
    dist.destroy_process_group()  # not after an error: its message must come first
    return summary


def collect(options: argparse.Namespace, rank: int, world: int) -> dict[str, Any] | None:
    """Collect this process's share of the parts; one of the processes puts all together.

    Args:
        options: of the command line.
        rank: of this process among ``world``.
        world: how many processes share the work.
    """
    device = []
    if world > 1 and torch.cuda.is_available():
        device = ["MODEL.DEVICE", f"cuda:{os.environ.get('LOCAL_RANK', 0)}"]
    cfg = setup_cfg(options.config_file, [*device, *options.opts])
    if cfg.INPUT.FORMAT != "RGB":
        raise UserError(f"INPUT.FORMAT {cfg.INPUT.FORMAT} is not supported here: set it to RGB")
    check_folder(options.output)
    settings = settings_of(options, cfg)
    compare_settings(options.output, settings)
    register_custom(cfg.DATASETS.CUSTOM)
    source: Source = (
        LabelSource(options, cfg) if options.ground_truth else CaptionSource(options, cfg)
    )
    starts = range(0, len(source), IMAGES_A_PART)
    lacking = parts_to_do(options.output, len(starts))
    if lacking:
        source.prepare()
    # only now: an argument that cannot be used leaves nothing behind
    write_json(options.output / "settings.json", settings)
    todo = [part for part in lacking if part % world == rank]
    for part in todo:
        part_path(options.output, part).unlink(missing_ok=True)
    logger.info("%d images, %d of %d parts to do", len(source), len(todo), len(starts))
    bar = tqdm(
        total=sum(min(IMAGES_A_PART, len(source) - starts[part]) for part in todo),
        desc="pairs", unit="image", mininterval=1, disable=None if rank == 0 else True,
    )  # fmt: skip
    with bar:
        for part in todo:
            collect_part(source, part, options.output, bar)
    wait_for_all()
    if dist.is_initialized() and rank > 0:
        return None
    if missing_parts(options.output, len(starts)):
        logger.info("done; other processes have not finished their parts")
        return None
    summary = merge_parts(options.output, len(starts), options.seed, options.format == "webdataset")
    logger.info("%s", json.dumps({k: v for k, v in summary.items() if k != "most frequent"}))
    if not summary["pairs"]:
        raise UserError(f"no pair was found; {options.output / 'summary.json'} counts the reasons")
    return summary


def check_folder(path: Path) -> None:
    """Check that a folder can be written, or made, before a model is loaded; nothing is made.

    Raises:
        UserError: it cannot.
    """
    above = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(
            f"--output {str(path)!r} cannot be written, since {str(above)!r} is no folder that can "
            "be written; give another"
        )


def missing_parts(folder: Path, count: int) -> list[int]:
    """Which of ``count`` parts are not yet recorded."""
    return [part for part in range(count) if not part_path(folder, part).is_file()]


def parts_to_do(folder: Path, count: int) -> list[int]:
    """Which of ``count`` parts are not yet recorded, or without images that could not be read."""
    recorded = {part: part_path(folder, part) for part in range(count)}
    return [
        part
        for part, path in recorded.items()
        if not path.is_file() or read_json(path, dict).get("counts", {}).get(UNREADABLE)
    ]


def settings_of(options: argparse.Namespace, cfg: CfgNode) -> dict[str, Any]:
    """What decides the pairs; of files also what they hold."""
    settings = plain_settings(options, leave_out=("output", "format"))
    settings["config_file"] = with_digest(options.config_file)
    if options.captions is not None:
        settings |= {
            "captions": with_digest(options.captions),
            "weights": with_digest(cfg.MODEL.WEIGHTS),
            "clip": with_digest(cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME),
        }
    return settings


def collect_part(source: Source, part: int, folder: Path, bar: tqdm[Any]) -> None:
    """Collect the pairs of one part and record it."""
    counts: Counter[str] = Counter()
    rows = []
    start = part * IMAGES_A_PART
    if part == 0:
        counts.update(source.counts)
    for index in range(start, min(start + IMAGES_A_PART, len(source))):
        pairs = source.pairs(index, counts)
        name = f"crops/{part:05d}/{index:07d}"
        rows += write_crops(folder, name, pairs, source.fill, source.kind, source.image_id(index))
        bar.update()
    write_json(part_path(folder, part), {"rows": rows, "counts": counts})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with cli_errors():
        main()
