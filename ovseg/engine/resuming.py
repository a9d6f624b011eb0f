"""May a training go on in its ``OUTPUT_DIR``, and may a new one begin there?

A checkpoint carries the settings that its training must go on with. They are looked at before
anything is built, loaded or written.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from ovseg.data.datasets import dataset_classes, load_dataset
from ovseg.engine.metrics_file import drop_later_metrics
from ovseg.engine.writers import WANDB_RUN
from ovseg.errors import UserError
from ovseg.pretrained import CLIP_FILE_KEYS
from ovseg.utils.checkpoint_files import read_checkpoint
from ovseg.utils.locks import only_process
from ovseg.utils.settings import check_settings

logger = logging.getLogger(__name__)

#: the file by which detectron2 finds the last checkpoint
MARK = "last_checkpoint"
_LOADERS_END = 10.0  # seconds until the loading processes of a killed training have ended, too

#: keys, or groups of keys, that a run may be resumed with another value of. The learning rate and
#: its schedule take effect; the others do not change what is learned. docs/training.md lists them
MAY_CHANGE = (
    "SOLVER.BASE_LR",
    "SOLVER.MAX_ITER",
    "SOLVER.WARMUP_FACTOR",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.WARMUP_METHOD",
    "SOLVER.POLY_LR_POWER",
    "SOLVER.POLY_LR_CONSTANT_ENDING",
    "SOLVER.AMP",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.TEST_IMS_PER_BATCH",
    "TEST",
    "DATASETS.TEST",
    "DATASETS.CUSTOM",  # their names, classes and images count
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "INPUT.MAX_MEGAPIXELS",
    "MODEL.MASK_FORMER.TEST",
    "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE",
    "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT",
    "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN",
    "MODEL.CLIP_ADAPTER.MASK_THR",
    "MODEL.CLIP_ADAPTER.MASK_FILL",
    "MODEL.CLIP_ADAPTER.MASK_EXPAND_RATIO",
    "MODEL.CLIP_ADAPTER.MASK_MATTING",
    "MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD",
    "MODEL.CLIP_ADAPTER.REGION_ENCODER",
    "MODEL.CLIP_ADAPTER.SHARED_RESOLUTION",
    "MODEL.CLIP_ADAPTER.SHARED_FIRST_BLOCK",
    "MODEL.CLIP_ADAPTER.SHARED_READOUT",
    "MODEL.CLIP_ADAPTER.SHARED_WEIGHTS",
    "MODEL.CLIP_ADAPTER.BACKGROUND",
    "MODEL.CLIP_ADAPTER.CROPS",
    "MODEL.CLIP_ADAPTER.CROPS_TOLERANCE",
    "MODEL.CLIP_ADAPTER.CROPS_MIN_AREA",
    "MODEL.CLIP_ADAPTER.CROPS_SECOND_ROUND",
    "MODEL.CLIP_ADAPTER.CROPS_BORROW_IOU",
    "MODEL.CLIP_ADAPTER.TEXT_CACHE",
    "MODEL.CLIP_ADAPTER.BEST_TEMPLATES",
    "MODEL.CLIP_ADAPTER.TEMPLATE_MAP",
    "MODEL.PRECISION",  # of crops, which training does not have
    "MODEL.COMPILE",
    "MODEL.WEIGHTS",  # what it started from
    "MODEL.DEVICE",
    "DATALOADER",
    "OUTPUT_DIR",
    "WANDB",
    "CUDNN_BENCHMARK",
    "VIS_PERIOD",
    "VERSION",
)


def training_settings(cfg: CfgNode) -> dict[str, Any]:
    """What a training must go on with: values by config key, its class names and image counts."""
    settings = dict(_flat(cfg))
    settings["classes of DATASETS.TRAIN"] = len(names := dataset_classes(cfg.DATASETS.TRAIN))
    settings |= {f"class {place}": name for place, name in enumerate(names)}
    settings |= {f"images of {name}": len(load_dataset(name)) for name in cfg.DATASETS.TRAIN}
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _flat(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if key in MAY_CHANGE:
            continue
        if isinstance(value, CfgNode):
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def last_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint that a run in a folder goes on from; None where there is none."""
    mark = Path(folder, MARK)
    if not mark.is_file():
        return None
    path = Path(folder, mark.read_text(encoding="utf-8").strip())
    return path if path.is_file() else None


def check_last_checkpoint(folder: str | os.PathLike[str]) -> Path:
    """The checkpoint that a run in a folder goes on from.

    Raises:
        UserError: there is none, though there was a training.
    """
    path = last_checkpoint(folder)
    if path is not None:
        return path
    mark = Path(folder, MARK)
    named = f" names {mark.read_text(encoding='utf-8').strip()!r}, which" if mark.is_file() else ""
    raise UserError(f"--resume: {mark}{named} is not there; {_choose_another(folder)}")


def _choose_another(folder: str | os.PathLike[str], broken: Path | None = None) -> str:
    """What to do where the last checkpoint cannot be used."""
    others = [path for path in sorted(Path(folder).glob("model_*.pth")) if path != broken]
    if not others:
        return "give --overwrite in place of --resume, to start anew"
    latest = max(others, key=lambda path: path.stat().st_mtime)
    return f"write the name of another checkpoint, such as {latest.name}, into {folder}/{MARK}"


def check_resume(cfg: CfgNode) -> None:
    """Find out whether the training in ``OUTPUT_DIR``, if there is one, can go on as ``cfg`` says.

    Raises:
        UserError: its checkpoint is missing or broken, it was begun with other settings, or is past
            ``SOLVER.MAX_ITER``.
    """
    if not checkpoints(cfg.OUTPUT_DIR):
        return
    path = check_last_checkpoint(cfg.OUTPUT_DIR)
    try:
        entries = read_checkpoint(path, "--resume:", mmap=True).entries
    except UserError as error:
        raise UserError(f"{error}, or {_choose_another(cfg.OUTPUT_DIR, path)}") from error
    trainer = entries.get("trainer")
    if not isinstance(trainer, Mapping) or "iteration" not in trainer:
        raise UserError(
            f"--resume: {path} holds weights alone, and no state of a training to go on with; "
            f"start anew from them, with MODEL.WEIGHTS {path} and another OUTPUT_DIR"
        )
    done = trainer["iteration"] + 1
    if done > cfg.SOLVER.MAX_ITER:
        raise UserError(
            f"--resume: {path} has {done} iterations behind it, more than SOLVER.MAX_ITER "
            f"{cfg.SOLVER.MAX_ITER}; give SOLVER.MAX_ITER {done} or more"
        )
    recorded = trainer.get("settings")
    if recorded is None:
        logger.warning("%s does not say with what settings it was trained: not checked.", path)
        return
    present = training_settings(cfg)
    # keys that only this version, or only the one before it, has are no difference
    same = [name for name in present if name in recorded or not name.isupper()]
    check_settings(
        {name: recorded.get(name) for name in same},
        {name: present[name] for name in same},
        what=f"--resume: {path}",
        way_out="give the same; or start anew from its weights, with MODEL.WEIGHTS "
        f"{path} and another OUTPUT_DIR",
        names={name: name for name in same},
    )


def checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of a training in a folder, and the file that names the last one."""
    found = [Path(folder, MARK), *sorted(Path(folder).glob("model_*.pth"))]
    return [path for path in found if path.is_file()]


def earlier_training(folder: str | os.PathLike[str]) -> list[Path]:
    """What shows that a training ran in a folder; an evaluation or a config shows none."""
    metrics = Path(folder, "metrics.json")
    # a run that ended before its first line leaves an empty one
    return checkpoints(folder) + ([metrics] if metrics.is_file() and metrics.stat().st_size else [])


def check_fresh(cfg: CfgNode, overwrite: bool) -> None:
    """Find out whether a new training would be mixed with an earlier one in ``OUTPUT_DIR``.

    Raises:
        UserError: it would; or with ``overwrite`` the weights to start from would be removed.
    """
    found = earlier_training(cfg.OUTPUT_DIR)
    if found and not overwrite:
        names = ", ".join(path.name for path in found[:3]) + (" ..." if len(found) > 3 else "")
        raise UserError(
            f"config key OUTPUT_DIR: {cfg.OUTPUT_DIR!r} holds an earlier training ({names}); give "
            "--resume to go on with it, another OUTPUT_DIR, or --overwrite to remove its files"
        )
    adapter = cfg.MODEL.CLIP_ADAPTER
    named = [cfg.MODEL.WEIGHTS, *(getattr(adapter, key) for key in CLIP_FILE_KEYS)]
    needed = {Path(name).resolve() for name in named if name}
    for path in found:
        if path.resolve() in needed:
            raise UserError(
                f"--overwrite would remove {path}, which this training starts from; move it, or "
                "give another OUTPUT_DIR"
            )


@contextmanager
def only_training(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other trainings out of a folder while the block runs.

    Two of them would write the same checkpoints, and ``--overwrite`` would remove the other's.

    Raises:
        UserError: a training writes to it.
    """
    lock = Path(folder, ".training.lock")
    said = f"config key OUTPUT_DIR: another training writes to {str(folder)!r}; give another folder"
    with only_process(lock, lambda: said, wait=_LOADERS_END):
        yield


def remove_training(folder: str | os.PathLike[str]) -> None:
    """Remove an earlier training from a folder: checkpoints, metrics, logs and its config.

    Results of evaluations stay, in ``inference``; a new evaluation writes them anew.
    """
    kinds = ("metrics.json", "events.out.tfevents.*", "log.txt*", "config.yaml", WANDB_RUN)
    others = [path for kind in kinds for path in Path(folder).glob(kind)]
    for path in [*earlier_training(folder), *others]:
        path.unlink(missing_ok=True)


def rewind_metrics(folder: str | os.PathLike[str]) -> None:
    """Remove from ``metrics.json`` what a run that goes on in a folder will write anew."""
    path, done = last_checkpoint(folder), 0
    if path is not None:
        done = read_checkpoint(path, "--resume:", mmap=True).entries.get("iteration", -1) + 1
    drop_later_metrics(Path(folder, "metrics.json"), done)
