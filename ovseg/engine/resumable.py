"""One pass of a model over a data set that counts into arrays: shared out, resumable, bounded.

What is counted does not grow with the number of pixels or images seen, so it can be saved now and
then; a pass that was interrupted goes on where it was last saved. Images are read, batched and
shared among processes exactly as an evaluation by ``train_net.py`` does it.
"""

from __future__ import annotations

import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from torch.utils.data import DataLoader
from tqdm import tqdm

from ovseg.data.datasets import ignore_label, load_dataset
from ovseg.data.loader import Example
from ovseg.data.own.registration import dataset_vocabulary
from ovseg.data.proposal_files import evaluation_mapper
from ovseg.engine import stopping
from ovseg.engine.unreadable import MarkUnreadable
from ovseg.errors import UserError
from ovseg.modeling import OVSeg
from ovseg.pretrained import CLIP_FILE_KEYS
from ovseg.released import local_weights
from ovseg.structures import Regions
from ovseg.utils.digests import digest, file_digest
from ovseg.utils.io import atomic_path, user_path
from ovseg.utils.loading_process import loading_init
from ovseg.utils.settings import differing_settings
from ovseg.utils.shares import own_share

logger = logging.getLogger(__name__)

#: called with a batch of sound examples; returns for each of them None, or why it was left out
CountBatch = Callable[[list[Example]], list[str | None]]


@dataclass
class Counts:
    """What a pass has counted.

    Attributes:
        arrays: numbers that add up over images; only ever changed in place.
        images: how many were counted.
        failures: a line for each image that could not be.
    """

    arrays: dict[str, np.ndarray]
    images: int = 0
    failures: list[str] = field(default_factory=list)


class RegionCounter(ABC):
    """A :data:`CountBatch` that looks at the proposals of each image."""

    _model: OVSeg

    @abstractmethod
    def count(self, example: Example, regions: Regions) -> None:
        """Count an image; a :class:`UserError` says why it is left out."""

    def __call__(self, batch: list[Example]) -> list[str | None]:
        """Count a batch."""
        outcomes: list[str | None] = []
        for example, regions in zip(batch, self._model.propose(batch), strict=True):
            try:
                self.count(example, regions)
                outcomes.append(None)
            except UserError as error:
                outcomes.append(str(error))
        return outcomes


def model_settings(cfg: CfgNode) -> dict[str, Any]:
    """What a model's counts depend on: its config, and the files that it names, as they are now."""
    relevant = cfg.clone()
    relevant.defrost()
    relevant.OUTPUT_DIR = ""
    relevant.DATALOADER.NUM_WORKERS = 0
    relevant.DATASETS.TEST = ()
    adapter = cfg.MODEL.CLIP_ADAPTER
    weights = PathManager.get_local_path(local_weights(cfg.MODEL.WEIGHTS))
    names = [weights, *(getattr(adapter, key) for key in CLIP_FILE_KEYS)]
    found = [Path(name).stat() for name in names if name and Path(name).is_file()]
    files = [[status.st_size, status.st_mtime_ns] for status in found]
    return {"config": relevant.dump(), "weights": files}


def _dataset_settings(
    cfg: CfgNode, dataset_name: str, examples: Sequence[Example]
) -> dict[str, Any]:
    """What counts depend on besides the model: images, classes, and what own data sets say."""
    files = [(example["file_name"], example.get("sem_seg_file_name", "")) for example in examples]
    described = [user_path(file) for file in cfg.DATASETS.CUSTOM]
    return {
        "images": digest(str(pair) for pair in files),
        "classes": dataset_vocabulary(dataset_name).words_of_class,
        "ignored value": ignore_label(dataset_name),
        "DATASETS.CUSTOM": [file_digest(file) for file in described if file.is_file()],
    }


def resumable_pass(
    cfg: CfgNode,
    dataset_name: str,
    counts: Counts,
    count_batch: CountBatch,
    *,
    folder: Path,
    settings: Mapping[str, Any],
    save_every: float = 60.0,
    limit: int | None = None,
) -> Counts | None:
    """Run ``count_batch`` over a data set.

    Args:
        cfg: how images are read and batched.
        dataset_name: a registered data set. Each example also has ``position``, its place in it.
        counts: empty ones, which ``count_batch`` adds to.
        count_batch: see :data:`CountBatch`.
        folder: where unfinished counts are kept; one file a process.
        settings: everything that the counts depend on. Files with other settings are not used.
        save_every: seconds between savings.
        limit: only the first so many images.

    Returns:
        On the main process the sum over all processes; None on the others.
    """
    examples = [
        {**example, "position": position}
        for position, example in enumerate(load_dataset(dataset_name, unpaired=True)[:limit])
    ]
    settings = {**settings, **_dataset_settings(cfg, dataset_name, examples)}
    rank, world = comm.get_rank(), comm.get_world_size()
    share = own_share(len(examples), cfg.SOLVER.TEST_IMS_PER_BATCH, rank, world)
    keep = _SavedCounts(folder / f"{dataset_name}-{rank}-of-{world}.npz", settings)
    done = keep.load(counts)
    loader = DataLoader(
        MapDataset(
            DatasetFromList(examples, copy=False),
            MarkUnreadable(evaluation_mapper(cfg, dataset_name)),
        ),
        sampler=share[done:],  # may be empty: all done, or more processes than images
        batch_size=cfg.SOLVER.TEST_IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=list,
        worker_init_fn=loading_init(),
    )
    bar = tqdm(
        total=len(share), initial=done, unit="image", desc=dataset_name, disable=rank > 0 or None
    )
    saved = time.monotonic()
    with bar, torch.inference_mode(), stopping.step_by_step("what was counted is saved"):
        for batch in loader:
            _count(dataset_name, batch, counts, count_batch)
            done += len(batch)
            bar.update(len(batch))
            if time.monotonic() - saved > save_every:
                keep.save(counts, done)
                saved = time.monotonic()
                # for logs, where there is no progress bar
                logger.info("%s: %d of %d images, saved", dataset_name, done, len(share))
            if stopping.stop_wanted():
                keep.save(counts, done)
                raise stopping.stopped()
    keep.save(counts, done)
    return _sum(comm.gather(counts))


def _count(
    dataset_name: str, batch: list[Example], counts: Counts, count_batch: CountBatch
) -> None:
    sound = [example for example in batch if "error" not in example]
    reasons = [example["error"] for example in batch if "error" in example]
    if sound:
        outcomes = count_batch(sound)
        counts.images += outcomes.count(None)
        reasons += [reason for reason in outcomes if reason is not None]
    for reason in reasons:
        line = " ".join(f"data set {dataset_name}: {reason}".split())
        logger.error("%s (left out)", line)
        counts.failures.append(line)


def _sum(gathered: list[Counts]) -> Counts | None:
    if not comm.is_main_process():
        return None
    total = gathered[0]
    for part in gathered[1:]:
        for name, array in part.arrays.items():
            total.arrays[name] += array
        total.images += part.images
        total.failures += part.failures
    return total


class _SavedCounts:
    """The file of one process's unfinished counts."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._settings = json.dumps(settings, default=str)

    def load(self, counts: Counts) -> int:
        """Add what was saved under the same settings; the number of images it stands for."""
        if not self._path.exists():
            return 0
        try:
            with np.load(self._path, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                different = differing_settings(
                    json.loads(header["settings"]), json.loads(self._settings)
                )
                if different:
                    logger.warning(
                        "%s is of another %s: starting anew.", self._path, ", ".join(different)
                    )
                    return 0
                for name, array in counts.arrays.items():
                    array += file[f"array_{name}"]
        except Exception as error:  # NumPy raises nearly anything on a broken file
            raise UserError(f"{self._path} cannot be read ({error}); remove it") from error
        counts.images = header["images"]
        counts.failures += header["failures"]
        if header["done"]:
            logger.info("Going on after %d images (%s).", header["done"], self._path)
        return int(header["done"])

    def save(self, counts: Counts, done: int) -> None:
        header = {
            "settings": self._settings,
            "done": done,
            "images": counts.images,
            "failures": counts.failures,
        }
        with atomic_path(self._path) as path:
            arrays: dict[str, Any] = {f"array_{name}": a for name, a in counts.arrays.items()}
            np.savez_compressed(path, header=np.array(json.dumps(header)), **arrays)
