"""The paper's ablations in miniature, on StickerScenes: one command, some 70 minutes on two cores.

    python open_clip_training/ablations.py --output output/ablations

It needs the CLIP of pretrain.py and the network that train_net.py trained with it (--clip,
--weights). It mines mask-noun pairs from the captions of ``train`` with collect_pairs.py, adapts
that CLIP with train.py in every way that a row of the paper's Tables 2, 3, 4 and 6 asks for, three
seeds each, and compares them on the trained MaskFormer's own proposals. These are computed once;
the ensemble weight of each run is chosen on ``dev`` and reported on ``test``.

Results: table.md, table.json, chart.png. What is done is kept: the same command goes on after an
interruption. Two CPU processes work at a time, one core each (--processes).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from open_clip_training import train
from open_clip_training.ablation_eval import adapted_config, evaluate, save_proposals
from open_clip_training.ablation_report import Results, draw_chart, tables
from open_clip_training.ablation_runs import (
    BASELINE,
    RECIPES,
    Recipe,
    Schedule,
    train_arguments,
)
from open_clip_training.pairs_output import (
    compare_settings,
    plain_settings,
    with_digest,
    write_json,
)
from open_clip_training.run_state import check_ranges, resume_path
from ovseg.config import setup_cfg
from ovseg.data.splits import data_root
from ovseg.engine.checks import weights_exist
from ovseg.errors import UserError, cli_errors
from ovseg.utils.io import atomic_path

logger = logging.getLogger("ablations")
COLLECT = Path(__file__).resolve().with_name("collect_pairs.py")


@dataclass(frozen=True)
class Plan:
    """What every run needs to know; it is sent to the worker processes."""

    config_file: str
    opts: tuple[str, ...]
    clip: Path
    output: Path
    schedule: Schedule
    datasets: tuple[str, str]

    def folder(self, name: str, seed: int) -> Path:
        """Of a run."""
        return self.output / "runs" / f"{name}_{seed}"

    def proposals(self, dataset: str) -> Path:
        """The saved proposals of a data set."""
        return self.output / f"proposals_{dataset}.npz"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", default="configs/ovseg_tiny.yaml")
    add("--weights", default="output/ovseg_tiny/model_final.pth",
        help="the trained OVSeg that proposes, the original CLIP in it")  # fmt: skip
    add("--clip", type=Path, default=Path("output/clip_tiny/clip.pt"), help="the CLIP to adapt")
    add("--output", type=Path, default=Path("output/ablations"))
    add("--mine-images", type=int, default=5000, help="of train")
    add("--dev-images", type=int, default=80, help="where the ensemble weight is chosen")
    add("--test-images", type=int, default=160, help="where scores are reported")
    add("--steps", type=int, default=60, help="of one adaptation")
    add("--batch-size", type=int, default=128)
    add("--lr", type=float, default=1e-4, help="of fine-tuning")
    add("--prompt-lr", type=float, default=0.1)
    add("--seeds", type=int, default=3, help="runs a row")
    add("--processes", type=int, default=min(os.cpu_count() or 1, 4))
    add("--quick", action="store_true", help="a few images and steps: does it run?")
    add("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE",
        help="override the config; last on the line")  # fmt: skip
    options = parser.parse_args(arguments)
    at_least_1 = ("mine_images", "dev_images", "test_images", "steps", "seeds", "processes")
    check_ranges(options, {
        **dict.fromkeys(at_least_1, (1, math.inf)),
        **dict.fromkeys(("lr", "prompt_lr"), (0, math.inf)),
        "batch_size": (2, math.inf),
    })  # fmt: skip
    if options.quick:
        options.mine_images, options.dev_images, options.test_images = 12, 3, 4
        options.steps, options.batch_size, options.seeds = 2, 8, 1
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ablation, or the rest of it.

    Raises:
        UserError: an argument or the data cannot be used, or a command failed.
    """
    options = parse_arguments(arguments)
    if not options.clip.is_file():
        raise UserError(f"--clip {str(options.clip)!r} is not there: run pretrain.py first")
    if not weights_exist(options.weights):
        raise UserError(f"--weights {options.weights!r} is not there: run train_net.py first")
    cfg = setup_cfg(options.config_file, ["MODEL.WEIGHTS", options.weights, *options.opts])
    # only now: an argument that cannot be used leaves nothing behind
    check_settings(options)
    started = time.monotonic()
    # processes share the cores; more threads than one would only wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for kind in ("mined", "ground-truth"):
        collect(options, kind)
    plan = Plan(
        config_file=options.config_file,
        opts=tuple(options.opts),
        clip=options.clip,
        output=options.output,
        schedule=Schedule(options.steps, options.batch_size, options.lr, options.prompt_lr),
        datasets=("stickerscenes_dev", "stickerscenes_test"),
    )
    limits = (options.dev_images, options.test_images)
    for dataset, limit in zip(plan.datasets, limits, strict=True):
        if not plan.proposals(dataset).is_file():
            save_proposals(cfg, dataset, limit, plan.proposals(dataset))
    results = run_all(plan, options.seeds, options.processes)
    minutes = (time.monotonic() - started) / 60
    write_report(options.output, results, minutes)


def check_settings(options: argparse.Namespace) -> None:
    """Record the settings, or compare with those of an earlier run in the same folder.

    Raises:
        UserError: they differ.
    """
    settings = plain_settings(options, leave_out=("output", "processes", "seeds"))
    settings |= {name: with_digest(settings[name]) for name in ("config_file", "weights", "clip")}
    compare_settings(options.output, settings)
    write_json(options.output / "settings.json", settings)


def pairs_folder(output: Path, kind: str) -> Path:
    """Where the pairs of a kind ("mined", "ground-truth") are."""
    return output / f"pairs_{kind}"


def collect(options: argparse.Namespace, kind: str) -> None:
    """Collect pairs with collect_pairs.py, in several processes."""
    folder = pairs_folder(options.output, kind)
    if (folder / "summary.json").is_file():
        return
    root = data_root() / "stickerscenes"
    source: list[str | Path] = ["--ground-truth", "stickerscenes_train"]
    if kind == "mined":
        source = ["--captions", root / "captions_train.json", "--images", root / "images/train"]
        source += ["--adjectives"]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", options.processes, COLLECT,
        "--config-file", options.config_file, *source, "--limit", options.mine_images,
        "--output", folder, "--opts", "MODEL.WEIGHTS", options.weights, *options.opts,
    ]  # fmt: skip
    logger.info("collecting %s pairs", kind)
    status = subprocess.run([str(part) for part in command], check=False).returncode
    if status:
        raise UserError(f"collecting {kind} pairs failed (exit code {status}); see above")


def run_all(plan: Plan, seeds: int, processes: int) -> Results:
    """Adapt and evaluate every CLIP; runs that start from another's result come after it."""
    first = [recipe for recipe in RECIPES if not recipe.start]
    second = [recipe for recipe in RECIPES if recipe.start]
    results: Results = {BASELINE: [], **{recipe.name: [] for recipe in RECIPES}}
    jobs: list[tuple[Recipe | None, int]] = [(None, 0)]
    jobs += [(recipe, seed) for seed in range(seeds) for recipe in first]
    later = [(recipe, seed) for seed in range(seeds) for recipe in second]
    bar = tqdm(total=len(jobs) + len(later), desc="runs", unit="run", disable=None)
    context = multiprocessing.get_context("spawn")
    with bar, ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        for wave in (jobs, later):
            for result in _results(pool, plan, wave):
                results[result["name"]].append(result)
                bar.update()
                bar.write(
                    f"{result['name']} seed {result['seed']}: ensemble {result['ensemble']}, "
                    f"CLIP alone {result['clip']}"
                )
    return {
        name: sorted(of_seeds, key=lambda result: result["seed"])
        for name, of_seeds in results.items()
    }


def _results(
    pool: ProcessPoolExecutor, plan: Plan, jobs: Iterable[tuple[Recipe | None, int]]
) -> Iterable[dict[str, Any]]:
    futures = [pool.submit(run_one, plan, recipe, seed) for recipe, seed in jobs]
    try:
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def run_one(plan: Plan, recipe: Recipe | None, seed: int) -> dict[str, Any]:
    """Adapt and evaluate one CLIP, or read the result of an earlier run; None: the original one."""
    name = recipe.name if recipe else BASELINE
    folder = plan.folder(name, seed)
    path = folder / "result.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"name": name, "seed": seed}
    clip = plan.clip
    started = time.monotonic()
    with (folder / "log.txt").open("w") as log, contextlib.redirect_stderr(log):
        if recipe:
            clip = folder / "clip.pt"
            start = plan.folder(recipe.start, seed) / "clip.pt" if recipe.start else plan.clip
            pairs = pairs_folder(plan.output, recipe.pairs)
            command = train_arguments(recipe, seed, plan.schedule, start, pairs, clip)
            train.main(command)
            history = json.loads((folder / "clip_history.json").read_text(encoding="utf-8"))
            result["train"] = " ".join(command)
            result["history"] = {key: history[key] for key in ("step", "pairs", "nouns", "losses")}
        trained = time.monotonic()
        cfg = adapted_config(plan.config_file, plan.opts, clip)
        saved = [plan.proposals(dataset) for dataset in plan.datasets]
        result |= evaluate(cfg, saved[0], saved[1], plan.datasets)
    result["seconds"] = {
        "training": round(trained - started), "evaluation": round(time.monotonic() - trained)
    }  # fmt: skip
    write_json(path, result)
    resume_path(folder / "clip.pt").unlink(missing_ok=True)  # larger than all else, and done with
    return result


def write_report(output: Path, results: Results, minutes: float) -> None:
    """Write table.md, table.json and chart.png."""
    text = tables(results)
    with atomic_path(output / "table.md") as path:
        path.write_text(text, encoding="utf-8")
    settings = json.loads((output / "settings.json").read_text(encoding="utf-8"))
    collected = {
        kind: json.loads((pairs_folder(output, kind) / "summary.json").read_text(encoding="utf-8"))
        for kind in ("mined", "ground-truth")
    }
    content = {"settings": settings, "minutes": round(minutes, 1), "pairs": collected}
    write_json(output / "table.json", {**content, "results": results})
    draw_chart(results, output / "chart.png")
    print(text)
    logger.info("%.0f minutes; %s", minutes, output / "table.md")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with cli_errors():
        main()
