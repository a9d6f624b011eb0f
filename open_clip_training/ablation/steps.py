"""The ablation from its first step to its last: pairs, proposals, runs, report."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from open_clip_training.ablation.recipes import Schedule
from open_clip_training.ablation.report import Results, draw_chart, tables
from open_clip_training.ablation.runs import AblationPlan, run_all
from open_clip_training.ablation.scoring import record_proposals
from ovseg.config import setup_cfg
from ovseg.data.splits import data_root
from ovseg.engine.checks import weights_exist
from ovseg.errors import UserError
from ovseg.utils.digests import with_digest
from ovseg.utils.io import read_json, write_json, write_text
from ovseg.utils.settings import (
    RECORD,
    check_folder_settings,
    option_settings,
    record_folder_settings,
)

logger = logging.getLogger("ablations")
KINDS = ("mined", "ground-truth")


def ablate(options: argparse.Namespace) -> None:
    """Run the ablation, or the rest of it.

    Raises:
        UserError: an argument or the data cannot be used, or a command failed.
    """
    if not options.clip.is_file():
        raise UserError(f"--clip {str(options.clip)!r} is not there: run pretrain.py first")
    if not weights_exist(options.weights):
        raise UserError(f"--weights {options.weights!r} is not there: run train_net.py first")
    cfg = setup_cfg(options.config_file, ["MODEL.WEIGHTS", options.weights, *options.opts])
    # only now: an argument that cannot be used leaves nothing behind
    begin_folder(options)
    started = time.monotonic()
    # processes share the cores; more threads than one would only wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    plan = AblationPlan(
        config_file=options.config_file,
        opts=tuple(options.opts),
        clip=options.clip,
        output=options.output,
        schedule=Schedule(options.steps, options.batch_size, options.lr, options.prompt_lr),
        datasets=("stickerscenes_dev", "stickerscenes_test"),
    )
    for kind in KINDS:
        collect_in_processes(options, kind, plan.pairs(kind))
    limits = (options.dev_images, options.test_images)
    for dataset, limit in zip(plan.datasets, limits, strict=True):
        if not plan.proposals(dataset).is_file():
            record_proposals(cfg, dataset, limit, plan.proposals(dataset))
    results = run_all(plan, options.seeds, options.processes)
    write_report(plan, results, (time.monotonic() - started) / 60)


def begin_folder(options: argparse.Namespace) -> None:
    """Record the settings, or compare with those of an earlier run in the same folder.

    Raises:
        UserError: they differ.
    """
    settings = option_settings(options, leave_out=("output", "processes", "seeds"))
    settings |= {name: with_digest(settings[name]) for name in ("config_file", "weights", "clip")}
    check_folder_settings(options.output, settings)
    record_folder_settings(options.output, settings)


def collect_in_processes(options: argparse.Namespace, kind: str, folder: Path) -> None:
    """Collect pairs of a kind with collect_pairs.py, in several processes.

    Raises:
        UserError: the command failed.
    """
    if (folder / "summary.json").is_file():
        return
    root = data_root() / "stickerscenes"
    source: list[str | Path] = ["--ground-truth", "stickerscenes_train"]
    if kind == "mined":
        source = ["--captions", root / "captions_train.json", "--images", root / "images/train"]
        source += ["--adjectives"]
    processes = min(options.processes, torch.cuda.device_count() or options.processes)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", processes, "--module", "open_clip_training.collect_pairs",
        "--config-file", options.config_file, *source, "--limit", options.mine_images,
        "--output", folder, "--opts", "MODEL.WEIGHTS", options.weights, *options.opts,
    ]  # fmt: skip
    logger.info("collecting %s pairs", kind)
    status = subprocess.run([str(part) for part in command], check=False).returncode
    if status:
        raise UserError(f"collecting {kind} pairs failed (exit code {status}); see above")


def write_report(plan: AblationPlan, results: Results, minutes: float) -> None:
    """Write table.md, table.json and chart.png, and print the tables."""
    text = tables(results)
    write_text(plan.output / "table.md", text)
    content = {
        "settings": read_json(plan.output / RECORD, dict),
        "minutes": round(minutes, 1),
        "pairs": {kind: read_json(plan.pairs(kind) / "summary.json", dict) for kind in KINDS},
        "results": results,
    }
    write_json(plan.output / "table.json", content)
    draw_chart(results, plan.output / "chart.png")
    print(text)
    logger.info("%.0f minutes; %s", minutes, plan.output / "table.md")
