"""Collect pairs in parts that processes share and a stopped run need not do again."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from tqdm import tqdm

from open_clip_training.common.processes import Processes
from open_clip_training.common.scripts import log_to_stderr
from open_clip_training.mining.folder import merge_parts, part_path, write_crops
from open_clip_training.mining.sources import UNREADABLE, CaptionSource, LabelSource, PairSource
from ovseg.config import setup_cfg
from ovseg.data.own.registration import register_custom
from ovseg.engine.process_options import PROCESS_OPTIONS
from ovseg.errors import UserError
from ovseg.utils.digests import with_digest
from ovseg.utils.io import folder_stays, read_json, write_json
from ovseg.utils.settings import (
    check_folder_settings,
    option_settings,
    record_folder_settings,
)

logger = logging.getLogger("collect_pairs")
#: images whose pairs are recorded together
IMAGES_A_PART = 50
#: settings that are no options
_KEYS = {"weights": "MODEL.WEIGHTS", "clip": "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME"}


def collect_here(options: argparse.Namespace) -> dict[str, Any] | None:
    """:func:`collect_pairs` in one of the processes that :mod:`ovseg.engine.processes` starts."""
    log_to_stderr()
    return collect_pairs(options, Processes.present("cpu"))


def collect_pairs(options: argparse.Namespace, processes: Processes) -> dict[str, Any] | None:
    """Collect this process's share of the parts; one of the processes puts all together.

    Args:
        options: of the command line.
        processes: that share the work.

    Returns:
        The summary; None when another process makes it.

    Raises:
        UserError: an argument or the data cannot be used.
    """
    cfg = mining_cfg(options)
    check_folder(options.output)
    settings = settings_of(options, cfg)
    check_folder_settings(options.output, settings, _KEYS)
    register_custom(cfg.DATASETS.CUSTOM)
    source: PairSource = (
        LabelSource(options, cfg) if options.ground_truth else CaptionSource(options, cfg)
    )
    starts = range(0, len(source), IMAGES_A_PART)
    lacking = parts_to_do(options.output, len(starts))
    if lacking:
        source.prepare()
    # only now: an argument that cannot be used leaves nothing behind
    record_folder_settings(options.output, settings)
    todo = [part for part in lacking if part % processes.world == processes.rank]
    for part in todo:
        part_path(options.output, part).unlink(missing_ok=True)
    logger.info("%d images, %d of %d parts to do", len(source), len(todo), len(starts))
    bar = tqdm(
        total=sum(min(IMAGES_A_PART, len(source) - starts[part]) for part in todo),
        desc="pairs", unit="image", mininterval=1, disable=None if processes.rank == 0 else True,
    )  # fmt: skip
    with bar, folder_stays(options.output):
        for part in todo:
            collect_part(source, part, options.output, bar)
    comm.synchronize()
    if processes.rank > 0:
        return None
    summary = merge_parts(options.output, len(starts), options.seed, options.format == "webdataset")
    logger.info("%s", json.dumps({k: v for k, v in summary.items() if k != "most frequent"}))
    if not summary["pairs"]:
        raise UserError(f"no pair was found; {options.output / 'summary.json'} counts the reasons")
    return summary


def mining_cfg(options: argparse.Namespace) -> CfgNode:
    """The config of the OVSeg that proposes.

    Raises:
        UserError: it cannot be used.
    """
    cfg = setup_cfg(options.config_file, options.opts)
    if cfg.INPUT.FORMAT != "RGB":
        raise UserError(f"INPUT.FORMAT {cfg.INPUT.FORMAT} is not supported here: set it to RGB")
    return cfg


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
    settings = option_settings(options, leave_out=("output", "format", *PROCESS_OPTIONS))
    settings["config_file"] = with_digest(options.config_file)
    if options.captions is not None:
        settings |= {
            "captions": with_digest(options.captions),
            "weights": with_digest(cfg.MODEL.WEIGHTS),
            "clip": with_digest(cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME),
        }
    return settings


def collect_part(source: PairSource, part: int, folder: Path, bar: tqdm[Any]) -> None:
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
