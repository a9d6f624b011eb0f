"""Methods trained and evaluated side by side, each with the same steps and seeds.

A method is a config of ``configs/methods``. Each of its runs is the two ordinary commands, ``ovseg
train`` and ``ovseg evaluate``, in processes of their own; some need what is made before, see
:mod:`ovseg.engine.preparation`. What is finished is not done again, and what another process does
is left to it, so that several can share a comparison's runs.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ovseg.config import setup_cfg
from ovseg.data.datasets import load_dataset
from ovseg.data.own.registration import register_custom
from ovseg.data.splits import data_root
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.preparation import PREPARATIONS, Preparation
from ovseg.engine.resuming import checkpoints
from ovseg.engine.trainer import Trainer
from ovseg.errors import UserError
from ovseg.utils.io import read_json, write_json, write_text
from ovseg.utils.locks import Occupied, only_process
from ovseg.utils.package_files import package_folder

logger = logging.getLogger(__name__)

RESULT = "result.json"
# batches that pass before the clock starts, and that it runs for
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
        """Of all finished runs in the folder by method, whichever command did them."""
        return {
            method: [read_json(path, dict) for path in found]
            for method in known_methods()
            if (found := sorted(self.output.glob(f"{method}/seed_*/{RESULT}")))
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
            if not (self.folder(method, seed) / RESULT).is_file():
                run = f"run {number} of {len(runs)}: {method}, seed {seed}"
                try:
                    with self._alone(method, seed, wait=0):
                        # another process may have finished it since
                        if not (self.folder(method, seed) / RESULT).is_file():
                            progress(f"{run}{self._time_left(runs)}")
                            self._run(method, seed)
                except Occupied:
                    progress(f"{run} is left to another process, which is at it")
            yield

    def _run(self, method: str, seed: int) -> None:
        folder = self.folder(method, seed)
        began, fresh = time.monotonic(), not checkpoints(folder)
        prepared = self._prepare(method, seed)
        self._train(method, seed, prepared)
        result = self._evaluate(method, seed, prepared)
        # of a run that goes on, it is not known
        seconds = round(time.monotonic() - began) if fresh else None
        write_json(folder / RESULT, result | {"seconds": seconds})

    def _alone(
        self, method: str, seed: int, wait: float | None = None
    ) -> AbstractContextManager[None]:
        """Keep other processes of the same comparison from a run."""
        lock = self.output / method / f".seed_{seed}.lock"
        said = f"waiting for another process, which is at {method}, seed {seed}"
        return only_process(lock, lambda: said, wait)

    def check(self) -> None:
        """Find out whether the data sets of all methods are there, and the packages they need.

        Raises:
            UserError: names the method, and what is missing.
        """
        for method in self.methods:
            cfg, plain = self._cfg(method), self._cfg(_need(method).network or method)
            register_custom(plain.DATASETS.CUSTOM)
            for name in (*plain.DATASETS.TRAIN, cfg.MODEL.METHOD.UNLABELLED):
                try:
                    load_dataset(name) if name else None
                except UserError as error:
                    raise UserError(f"{method}: {error} (or leave it out of --methods)") from error
            module, install = _need(method).package or ("", "")
            if module and self._is_made(method) and importlib.util.find_spec(module) is None:
                raise UserError(
                    f"{method} needs {module}; install it: {install} (or leave {method} out of "
                    "--methods)"
                )

    def _time_left(self, runs: Sequence[tuple[str, int]]) -> str:
        """How long the runs that are left will take, by those that are finished."""
        took = {
            method: [run["seconds"] for run in done if run.get("seconds")]
            for method, done in self.results().items()
        }
        known = [seconds for each in took.values() for seconds in each]
        if not known:
            return ""
        left = sum(
            statistics.mean(took.get(method) or known)
            for method, seed in runs
            if not (self.folder(method, seed) / RESULT).is_file()
        )
        return f"; about {tqdm.format_interval(left)} left"

    def _cfg(self, method: str) -> Any:
        return setup_cfg(known_methods()[method], list(self.opts))

    def _is_made(self, method: str) -> bool:
        """Whether what a method needs is made here, and not given."""
        need = _need(method)
        # data sets of one's own are added to what is made, all else takes its place
        if not need.gives or need.gives[0] in {*self.opts[::2]} - {"DATASETS.CUSTOM"}:
            return False
        named = functools.reduce(getattr, need.gives[0].split("."), self._cfg(method))
        return not (need.shared and Path(named).is_file())

    def _prepare(self, method: str, seed: int) -> list[str]:
        """KEY VALUE pairs of what a method needs, after it was made where it is not there."""
        need = _need(method)
        if not self._is_made(method):
            return [*need.always]
        folder, own = self.folder(method, seed), self._cfg(method)
        if need.shared:
            seed, folder = self.seeds[0], self.output / "prepared"
        plain = self._cfg(need.network or method)
        if need.network:
            self._train(need.network, seed, self._prepare(need.network, seed))
        clip = plain.MODEL.CLIP_ADAPTER
        names = {
            "folder": str(folder),
            "network": str(self.folder(need.network, seed)),
            "configs": str(package_folder("configs")),
            "scenes": str(data_root() / "stickerscenes"),
            "clip": clip.CLIP_PRETRAINED or clip.CLIP_MODEL_NAME,
            "train": ",".join(plain.DATASETS.TRAIN),
            "unlabelled": own.MODEL.METHOD.UNLABELLED,
            "custom": "".join(f"{file}," for file in plain.DATASETS.CUSTOM),
            "min_score": str(own.MODEL.METHOD.MIN_SCORE),
        }
        with self._alone("prepared" if need.shared else method, seed):
            given = need.run(names, self._pairs({"SEED": seed}), functools.partial(_call, method))
        return [*given, *need.always]

    def _train(self, method: str, seed: int, prepared: Sequence[str]) -> None:
        with self._alone(method, seed):  # it may be another's run, that this method starts from
            if not (self.folder(method, seed) / "model_final.pth").is_file():
                self._train_here(method, seed, prepared)

    def _train_here(self, method: str, seed: int, prepared: Sequence[str]) -> None:
        folder = self.folder(method, seed)
        if _need(method).is_network:
            self._take_network(method, seed, prepared)
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
        self._command("train", method, go_on, *self._pairs(schedule, prepared))

    def _take_network(self, method: str, seed: int, prepared: Sequence[str]) -> None:
        """See :attr:`Preparation.is_network`."""
        network = _need(method).network
        self._train(network, seed, self._prepare(network, seed))
        cfg = setup_cfg(known_methods()[method], [*self.opts, *prepared])
        clip, folder = cfg.MODEL.CLIP_ADAPTER.CLIP_PRETRAINED, self.folder(method, seed)
        folder.mkdir(parents=True, exist_ok=True)
        trained = self.folder(network, seed) / "model_final.pth"
        put = ["swap", "put", str(trained), clip, str(folder / "model_final.pth")]
        _call(method, [sys.executable, "-m", "ovseg", "weights", *put])
        write_text(folder / "config.yaml", cfg.dump())  # as a training leaves it

    def _evaluate(self, method: str, seed: int, prepared: Sequence[str]) -> dict[str, Any]:
        folder = self.folder(method, seed)
        opts = self._pairs(
            {
                "MODEL.WEIGHTS": folder / "model_final.pth",
                "DATASETS.TEST": self.dataset,
                "OUTPUT_DIR": folder,
            },
            prepared,
        )
        self._command("evaluate", method, *opts)
        found = read_json(folder / "inference" / self.dataset / "results.json", dict)
        cfg = setup_cfg(known_methods()[method], opts)
        register_custom(cfg.DATASETS.CUSTOM)
        return {"steps": self.steps, "percent": found["percent"], **measure(cfg, self.dataset)}

    def _pairs(self, settings: dict[str, Any], prepared: Sequence[str] = ()) -> list[str]:
        return [*self.opts, *prepared, *(str(part) for pair in settings.items() for part in pair)]

    def _command(self, command: str, method: str, *arguments: str) -> None:
        config = ["--config-file", str(known_methods()[method])]
        _call(method, [sys.executable, "-m", "ovseg", command, *config, *arguments])


def _need(method: str) -> Preparation:
    return PREPARATIONS.get(method, Preparation(stages=(), gives=()))


def _call(method: str, command: Sequence[str]) -> None:
    status = subprocess.run(command, check=False).returncode
    if status:
        said = f"ovseg {command[3]}" if command[1] == "-m" else Path(command[1]).name
        raise UserError(
            f"{method}: {said} failed (exit code {status}), see above; the same command goes on "
            "from here"
        )


@torch.inference_mode()
def measure(cfg: Any, dataset: str) -> dict[str, Any]:
    """Parameters of a trained model, all and those that were trained, and images a second."""
    model = Trainer.build_model(cfg).eval()
    OVSegCheckpointer(model, cfg=cfg, trained=True).load(cfg.MODEL.WEIGHTS)
    started, timed = 0.0, 0
    loader = islice(Trainer.build_test_loader(cfg, dataset), _WARM_UP + _TIMED)
    for number, batch in enumerate(loader):
        if number == _WARM_UP:
            started = time.perf_counter()
        readable = [example for example in batch if "error" not in example]
        for labels in model(readable) if readable else ():
            labels["labels"].cpu()  # waits for a GPU
        timed += len(readable) if number >= _WARM_UP else 0
    seconds = time.perf_counter() - started
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
