"""The runs of the ablation: each adapts a CLIP and scores it, several at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from open_clip_training.ablation.recipes import (
    ORIGINAL,
    RECIPES,
    AdaptationRecipe,
    Schedule,
    train_arguments,
)
from open_clip_training.ablation.report import Results
from open_clip_training.ablation.scoring import adapted_config, score_clip
from open_clip_training.adaptation.loop import adapt, learn
from open_clip_training.adaptation.options import parse_arguments
from open_clip_training.common.options import resume_path
from open_clip_training.common.run_state import history_path
from open_clip_training.regions.loop import adapt_to_regions
from ovseg.utils.io import read_json, write_json


@dataclass(frozen=True)
class AblationPlan:
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

    def pairs(self, kind: str) -> Path:
        """Where the pairs of a kind ("mined", "ground-truth") are."""
        return self.output / f"pairs_{kind}"

    def proposals(self, dataset: str) -> Path:
        """The saved proposals of a data set."""
        return self.output / f"proposals_{dataset}.npz"


def run_all(plan: AblationPlan, seeds: int, processes: int) -> Results:
    """Adapt and evaluate every CLIP; runs that start from another's result come after it."""
    first = [recipe for recipe in RECIPES if not recipe.start]
    second = [recipe for recipe in RECIPES if recipe.start]
    results: Results = {recipe.name: [] for recipe in (ORIGINAL, *RECIPES)}
    jobs = [(ORIGINAL, 0)]
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
    pool: ProcessPoolExecutor,
    plan: AblationPlan,
    jobs: Iterable[tuple[AdaptationRecipe, int]],
) -> Iterable[dict[str, Any]]:
    futures = [pool.submit(run_one, plan, recipe, seed) for recipe, seed in jobs]
    try:
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def run_one(plan: AblationPlan, recipe: AdaptationRecipe, seed: int) -> dict[str, Any]:
    """Adapt and evaluate one CLIP, or read the result of an earlier run."""
    folder = plan.folder(recipe.name, seed)
    path = folder / "result.json"
    if path.is_file():
        return read_json(path, dict)
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"name": recipe.name, "seed": seed}
    clip = plan.folder(recipe.start, seed) / "clip.pt" if recipe.start else plan.clip
    output = folder / "clip.pt"
    started = time.monotonic()
    with (folder / "log.txt").open("w") as log, contextlib.redirect_stderr(log):
        if recipe.train:
            trains = adapt_to_regions if recipe.shared else learn if recipe.is_frozen else adapt
            pairs = plan.pairs(recipe.pairs)
            command = train_arguments(recipe, seed, plan.schedule, clip, pairs, output)
            trains(parse_arguments(command))
            history = read_json(history_path(output), dict)
            result["train"] = " ".join(command)
            kept = ("step", "pairs", "nouns", "losses")
            result["history"] = {key: history[key] for key in kept if key in history}
            clip = clip if recipe.has_own_file else output
        trained = time.monotonic()
        cfg = adapted_config(plan.config_file, [*plan.opts, *recipe.opts(output)], clip)
        saved = [plan.proposals(dataset) for dataset in plan.datasets]
        result |= score_clip(cfg, saved[0], saved[1], plan.datasets)
    result["seconds"] = {
        "training": round(trained - started), "evaluation": round(time.monotonic() - trained)
    }  # fmt: skip
    write_json(path, result)
    resume_path(output).unlink(missing_ok=True)  # larger than all else, and done with
    return result
