"""Train and evaluate the tiny model in several processes, and compare with what one does.

    python tools/compare_processes.py
    python tools/compare_processes.py --ways 1 2 --steps 5 --images 3 1

Each way trains for 20 iterations of configs/ovseg_tiny.yaml with the same global batch, at a tenth
of its learning rate, and evaluates on numbers of images that do not divide evenly or are fewer than
the processes. Ways: N, processes that the command starts; torchrun:N; machines:N, two commands of N
processes each that meet at 127.0.0.2; srun:N, processes with SLURM's variables. Printed are the
largest difference of a loss, and whether the confusion matrices are the same. Exit code 1 where
they are not, or a loss differs by more than 1e-4.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ovseg.engine.process_options import add_processes, several_processes
from ovseg.errors import Parser, cli_errors

#: how far a loss may be from that of one process
TOLERANCE = 1e-4
IMAGES = "stickerscenes_frozen"
OPTS = [
    "MODEL.WEIGHTS", "ovseg://ovseg_tiny.pth", "MODEL.DEVICE", "cpu", "DATASETS.TEST", "()",
    "SOLVER.IMS_PER_BATCH", "4", "SOLVER.CHECKPOINT_PERIOD", "100000",
    "DATALOADER.NUM_WORKERS", "0",
    # AdamW makes steps of one size from gradients of any, so rounding grows, and faster with larger
    # steps: with the config's 6e-4, kernels of AVX2 reached 1.2e-4 after 17 iterations
    "SOLVER.BASE_LR", "0.00006",
]  # fmt: skip


def build_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--ways", nargs="+", metavar="WAY",
        default=["1", "2", "4", "torchrun:2", "machines:1", "machines:2", "srun:2"])  # fmt: skip
    add("--steps", type=int, default=20, metavar="N", help="iterations of training; default: 20")
    add("--images", type=int, nargs="+", default=[7, 3, 1], metavar="N",
        help="numbers of images to evaluate; default: 7 3 1")  # fmt: skip
    add("--size", type=int, default=128, metavar="PIXELS", help="side of the crops; default: 128")
    add("--record", metavar="DIR", help="do the work, and write what is compared to this folder")
    add_processes(parser, all_gpus=False)
    return parser


def record(steps: int, images: Sequence[int], size: int, folder: str) -> None:
    """One process's work: ``losses.json``, one row an iteration, the statistics of batch
    normalisation in ``batch_norm.npz``, and ``confusion_N.npy``."""
    from detectron2.engine import HookBase
    from detectron2.utils import comm

    from ovseg.config import setup_cfg
    from ovseg.engine.trainer import Trainer
    from ovseg.utils.package_files import config_path

    crop = [
        "INPUT.CROP.SIZE", f"({size},{size})", "INPUT.SIZE_DIVISIBILITY", str(size),
        "INPUT.MIN_SIZE_TRAIN", f"({size},{size + 16})",
    ]  # fmt: skip
    train = [
        "DATASETS.TRAIN", f"{IMAGES},", "SOLVER.MAX_ITER", str(steps), "OUTPUT_DIR", folder,
    ]  # fmt: skip
    cfg = setup_cfg(str(config_path("ovseg_tiny.yaml")), [*OPTS, *crop, *train])
    losses: list[dict[str, float]] = []

    class Recorder(HookBase):
        """Keeps the losses of each iteration, which are the means over all processes."""

        def after_step(self) -> None:
            """Keep those of this one."""
            values = self.trainer.storage.latest()
            losses.append({name: values[name][0] for name in values if "loss" in name})

    trainer = Trainer(cfg)
    trainer.register_hooks([Recorder()])
    trainer.resume_or_load(resume=False)
    trainer.train()
    if comm.is_main_process():
        Path(folder, "losses.json").write_text(json.dumps(losses), encoding="utf-8")
        found = trainer.model.state_dict().items()
        running = {name.removeprefix("module."): value for name, value in found}
        kept = {name: value.numpy() for name, value in running.items() if ".running_" in name}
        np.savez(Path(folder, "batch_norm.npz"), **kept)
    fresh = Trainer.build_model(cfg)
    for count in images:
        _record_confusion(fresh, count, folder)


def _record_confusion(model: object, count: int, folder: str) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.utils import comm

    from ovseg.config import setup_cfg
    from ovseg.data.datasets import load_dataset
    from ovseg.engine.checkpoint import OVSegCheckpointer
    from ovseg.engine.trainer import Trainer
    from ovseg.evaluation import SemSegEvaluator
    from ovseg.utils.package_files import config_path

    name = f"first_{count}_{os.getpid()}"
    examples = load_dataset(IMAGES)[:count]
    DatasetCatalog.register(name, lambda: examples)
    about = {k: v for k, v in MetadataCatalog.get(IMAGES).as_dict().items() if k != "name"}
    MetadataCatalog.get(name).set(**about)
    opts = [*OPTS, "DATASETS.TEST", f"{name},", "OUTPUT_DIR", folder]
    cfg = setup_cfg(str(config_path("ovseg_tiny.yaml")), opts)
    OVSegCheckpointer(model, cfg=cfg, trained=True).load(cfg.MODEL.WEIGHTS)  # type: ignore[arg-type]
    evaluator = SemSegEvaluator(name, None)
    Trainer.test(cfg, model, [evaluator])  # type: ignore[arg-type]
    parts = comm.gather((evaluator.confusion, evaluator.num_images))
    if comm.is_main_process():
        assert sum(seen for _, seen in parts) == count
        np.save(Path(folder, f"confusion_{count}.npy"), sum(part for part, _ in parts))


def run_way(way: str, args: Sequence[str], folder: Path) -> None:
    """Record in new processes that are started in one of the ways.

    Raises:
        RuntimeError: one of them failed.
    """
    script = [sys.executable, str(Path(__file__).resolve()), "--record", str(folder), *args]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            command(script), env={**environment, **more}, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )
        for command, more in _commands(way)
    ]  # fmt: skip
    said = [process.communicate()[1] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError(f"{way}: {said}")


def _commands(way: str) -> Iterator[tuple[functools.partial[list[str]], dict[str, str]]]:
    """How a way changes the script's command, and its variables, for each command that it needs."""
    kind, _, count = way.rpartition(":")
    if kind == "torchrun":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", count]
        yield functools.partial(_changed, launcher, []), {}
    elif kind == "machines":
        with socket.socket() as probe:
            probe.bind(("127.0.0.2", 0))
            port = probe.getsockname()[1]
        for machine in range(2):
            options = ["--num-processes", count, "--num-machines", "2"]
            options += ["--machine-rank", str(machine), "--dist-url", f"tcp://127.0.0.2:{port}"]
            yield functools.partial(_changed, [], options), {}
    elif kind == "srun":
        for rank in range(int(count)):
            variables = {
                "SLURM_PROCID": str(rank), "SLURM_NTASKS": count, "SLURM_LOCALID": str(rank),
                "SLURM_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid()),
                "SLURM_STEP_ID": "0",
            }  # fmt: skip
            yield functools.partial(_changed, [], []), variables
    else:
        yield functools.partial(_changed, [], ["--num-processes", count]), {}


def _changed(launcher: list[str], options: list[str], script: list[str]) -> list[str]:
    return [*(launcher or script[:1]), *script[1:], *options]


def difference(one: Path, other: Path) -> tuple[float, bool]:
    """The largest difference of a loss, and whether all confusion matrices are the same."""
    rows = [json.loads((folder / "losses.json").read_text("utf-8")) for folder in (one, other)]
    largest = max(
        abs(a[name] - b[name]) for a, b in zip(*rows, strict=True) for name in a.keys() | b.keys()
    )
    files = sorted(path.name for path in one.glob("confusion_*.npy"))
    assert files == sorted(path.name for path in other.glob("confusion_*.npy"))
    same = all(np.array_equal(np.load(one / name), np.load(other / name)) for name in files)
    return largest, same


def main(argv: Sequence[str] | None = None) -> None:
    """Record, or compare and print a table."""
    with cli_errors(), several_processes():
        args = build_parser().parse_args(argv)
        if args.record:
            from ovseg.engine.processes import start

            work = functools.partial(record, args.steps, args.images, args.size, args.record)
            start(work, args, device="cpu", output=args.record, argument="--record")
            return
    same_args = ["--steps", str(args.steps), "--size", str(args.size)]
    same_args += ["--images", *map(str, args.images)]
    failed = False
    print(f"{args.steps} iterations, 4 images each; {args.images} images to evaluate", flush=True)
    print(f"{'way':>12} {'largest difference of a loss':>30} {'confusion':>10} {'seconds':>8}")
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder, "reference")
        run_way("1", same_args, reference)
        for number, way in enumerate(args.ways):
            place, began = Path(folder, str(number)), time.monotonic()
            run_way(way, same_args, place)
            largest, same = difference(reference, place)
            failed |= largest > TOLERANCE or not same
            word = "same" if same else "DIFFERS"
            seconds = time.monotonic() - began
            print(f"{way:>12} {largest:>30.2e} {word:>10} {seconds:>8.0f}", flush=True)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
