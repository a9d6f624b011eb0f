"""Methods trained and evaluated side by side, each with the same steps and seeds.

A method is a config of ``configs/methods``. Each of its runs is the two ordinary commands, ``ovseg
train`` and ``ovseg evaluate``, in processes of their own; what is finished is not done again.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ovseg.config import setup_cfg
from ovseg.data.own.registration import register_custom
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.resuming import checkpoints
from ovseg.engine.trainer import Trainer
from ovseg.errors import UserError
from ovseg.utils.io import read_json, write_json
from ovseg.utils.package_files import package_folder

logger = logging.getLogger(__name__)

RESULT = "result.json"
# images that pass before the clock starts, and that it runs for
_WARM_UP, _TIMED = 3, 20


def known_methods() -> dict[str, Path]:
    """The configs of all methods by name."""
    folder = package_folder("configs") / "methods"
    return {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.stem[:5] != "base_"}


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        methods: names of configs of ``configs/methods``.
        seeds: a training each.
        steps: iterations of each training.
        dataset: that they are evaluated on.
        output: a folder; each run has one in it.
        opts: KEY VALUE pairs for all of them.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    dataset: str
    output: Path
    opts: tuple[str, ...]

    def folder(self, method: str, seed: int) -> Path:
        """Of a run."""
        return self.output / method / f"seed_{seed}"

    def results(self) -> dict[str, list[dict[str, Any]]]:
        """Of the finished runs, by method."""
        files = {m: [self.folder(m, seed) / RESULT for seed in self.seeds] for m in self.methods}
        return {
            method: [read_json(path, dict) for path in paths if path.is_file()]
            for method, paths in files.items()
        }

    def run(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Train and evaluate all that is not finished; yields after every run.

        ``progress`` is called with a line before each that has something to do.

        Raises:
            UserError: a command failed; what it said stands above.
        """
        # seed after seed, so that all methods have a result soon
        runs = [(method, seed) for seed in self.seeds for method in self.methods]
        for number, (method, seed) in enumerate(runs, start=1):
            folder = self.folder(method, seed)
            if not (folder / RESULT).is_file():
                progress(f"run {number} of {len(runs)}: {method}, seed {seed}")
                self._train(method, seed, folder)
                write_json(folder / RESULT, self._evaluate(method, folder))
            yield

    def _train(self, method: str, seed: int, folder: Path) -> None:
        if (folder / "model_final.pth").is_file():
            return
        schedule = {
            "SOLVER.MAX_ITER": self.steps,
            "SOLVER.WARMUP_ITERS": min(50, self.steps // 10),
            "SOLVER.CHECKPOINT_PERIOD": max(1, self.steps // 4),
            "SEED": seed,
            "OUTPUT_DIR": folder,
            "DATASETS.TEST": "()",
        }
        go_on = "--resume" if checkpoints(folder) else "--overwrite"
        self._call("train", method, go_on, *self._pairs(schedule))

    def _evaluate(self, method: str, folder: Path) -> dict[str, Any]:
        opts = self._pairs(
            {
                "MODEL.WEIGHTS": folder / "model_final.pth",
                "DATASETS.TEST": self.dataset,
                "OUTPUT_DIR": folder,
            }
        )
        self._call("evaluate", method, *opts)
        found = read_json(folder / "inference" / self.dataset / "results.json", dict)
        cfg = setup_cfg(known_methods()[method], opts)
        register_custom(cfg.DATASETS.CUSTOM)
        return {"steps": self.steps, "percent": found["percent"], **measure(cfg, self.dataset)}

    def _pairs(self, settings: dict[str, Any]) -> list[str]:
        return [*self.opts, *(str(part) for pair in settings.items() for part in pair)]

    def _call(self, command: str, method: str, *arguments: str) -> None:
        config = ["--config-file", str(known_methods()[method])]
        whole = [sys.executable, "-m", "ovseg", command, *config, *arguments]
        status = subprocess.run(whole, check=False).returncode
        if status:
            raise UserError(
                f"{method}: ovseg {command} failed (exit code {status}), see above; the same "
                "command goes on from here"
            )


@torch.inference_mode()
def measure(cfg: Any, dataset: str) -> dict[str, Any]:
    """Parameters of a trained model, all and those that were trained, and images a second."""
    model = Trainer.build_model(cfg).eval()
    OVSegCheckpointer(model, cfg=cfg, trained=True).load(cfg.MODEL.WEIGHTS)
    started = 0.0
    count = 0
    for batch in islice(Trainer.build_test_loader(cfg, dataset), _WARM_UP + _TIMED):
        if count == _WARM_UP:
            started = time.perf_counter()
        for labels in model(batch):
            labels["labels"].cpu()  # waits for a GPU
        count += 1
    seconds, timed = time.perf_counter() - started, count - _WARM_UP
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "images a second": timed / seconds if timed > 0 else None,
    }


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """The methods that are asked for; none: all.

    Raises:
        UserError: there is no such method.
    """
    known = known_methods()
    for name in names:
        if name not in known:
            raise UserError(f"--methods {name!r} is unknown; choose from {', '.join(known)}")
    return tuple(dict.fromkeys(names)) or tuple(known)
