"""Data loaders: an endless reproducible stream for training, one pass for evaluation.

In training, which image comes at a position of the stream and how it is augmented depend on nothing
but the seed and the position. So a run gives the same batches with any number of workers, and a
resumed run goes on with the batches it would have had.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ovseg.errors import UserError

Example = dict[str, Any]
Mapper = Callable[[Example], Example]


class SeededStream(Dataset[Example]):
    """Endless: item ``p`` is image ``p mod N`` of the order drawn for pass ``p // N``."""

    def __init__(self, dataset: Sequence[Example], mapper: Mapper, seed: int) -> None:
        """Stream ``dataset``'s dicts through ``mapper``; ``seed`` >= 0 decides all draws."""
        self._dataset = DatasetFromList(list(dataset), copy=False)
        self._mapper = mapper
        self._seed = seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def __getitem__(self, position: int) -> Example:
        epoch, place = divmod(position, len(self._dataset))
        if self._order[0] != epoch:
            generator = np.random.default_rng((self._seed, 0, epoch))
            self._order = (epoch, generator.permutation(len(self._dataset)))
        with _seeded(self._seed, 1, position):
            return self._mapper(self._dataset[int(self._order[1][place])])


@contextmanager
def _seeded(*seed: int) -> Iterator[None]:
    """Seed the generators that detectron2's augmentations draw from, and put them back after."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    value = int(np.random.SeedSequence(seed).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


class _Positions(Sampler[int]):
    """``start, start + step, start + 2 step, ...`` without end."""

    def __init__(self, start: int, step: int) -> None:
        self.start, self.step = start, step

    def __iter__(self) -> Iterator[int]:
        position = self.start
        while True:
            yield position
            position += self.step


class TrainLoader:
    """Endless batches (lists of examples); workers start with the first batch, not before.

    Attributes:
        start_iter: the iteration whose batch comes first; set it before iterating, to resume.
    """

    def __init__(self, stream: SeededStream, batch_size: int, num_workers: int = 0) -> None:
        """Serve ``stream`` in batches.

        Args:
            stream: the examples.
            batch_size: over all processes; each gets its share.
            num_workers: loading processes of each training process; 0: load in the process itself.
        """
        world = comm.get_world_size()
        if batch_size < 1 or batch_size % world:
            raise UserError(
                f"config key SOLVER.IMS_PER_BATCH: {batch_size} images cannot be shared among "
                f"{world} processes; make it a multiple of {world}"
            )
        self._stream = stream
        self._batch_size = batch_size
        self._num_workers = num_workers
        self.start_iter = 0

    def __iter__(self) -> Iterator[list[Example]]:
        world = comm.get_world_size()
        start = self.start_iter * self._batch_size + comm.get_rank()
        yield from DataLoader(
            self._stream,
            batch_size=self._batch_size // world,
            sampler=_Positions(start, step=world),
            num_workers=self._num_workers,
            collate_fn=_as_list,
            # else starting the loader draws from the generator that the model draws from
            generator=torch.Generator(),
        )


def build_test_loader(
    dataset: Sequence[Example], mapper: Mapper, batch_size: int = 1, num_workers: int = 0
) -> DataLoader[Example]:
    """One pass over ``dataset`` in order, each process over its share, in lists of examples."""
    return DataLoader(
        MapDataset(DatasetFromList(list(dataset), copy=False), mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(dataset)),
        num_workers=num_workers,
        collate_fn=_as_list,
    )


def _as_list(batch: list[Example]) -> list[Example]:
    return batch
