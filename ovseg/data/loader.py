"""Data loaders: an endless reproducible stream for training, one pass for evaluation.

In training, which image comes at a position of the stream and how it is augmented depend on nothing
but the seed and the position. So a run gives the same batches with any number of workers, and a
resumed run goes on with the batches it would have had. So it is with an image that cannot be read:
the seed and its position decide which one takes its place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList, MapDataset
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ovseg.data.lost_images import LostImages
from ovseg.errors import UserError
from ovseg.utils.loading_process import loading_init
from ovseg.utils.shares import own_share

Example = dict[str, Any]
Mapper = Callable[[Example], Example]


class SeededStream(Dataset[Example]):
    """Endless: item ``p`` is image ``p mod N`` of the order drawn for pass ``p // N``.

    An image that cannot be read is replaced by another, and the example has under ``lost`` the
    files that were left out, each with a line that says why.
    """

    def __init__(
        self, dataset: Sequence[Example], mapper: Mapper, seed: int, allowed: int = 0
    ) -> None:
        """Stream ``dataset``'s dicts through ``mapper``.

        Args:
            dataset: of dicts with ``file_name``.
            mapper: its :class:`UserError` says that a dict's files cannot be read.
            seed: >= 0; decides all draws.
            allowed: how many images may be lost for one item; then the item cannot be read.
        """
        self._dataset = DatasetFromList(list(dataset), copy=False)
        self._mapper = mapper
        self.seed = seed
        self._allowed = allowed
        self._order: tuple[tuple[int, int], np.ndarray] = ((-1, -1), np.empty(0, dtype=np.int64))

    def __getitem__(self, position: int) -> Example:
        epoch, place = divmod(position, len(self._dataset))
        if self._order[0] != (self.seed, epoch):
            generator = np.random.default_rng((self.seed, 0, epoch))
            self._order = ((self.seed, epoch), generator.permutation(len(self._dataset)))
        lost = LostImages(self._allowed, silent=True)
        for index in self._candidates(position, int(self._order[1][place])):
            example = self._dataset[index]
            try:
                with _seeded(self.seed, 1, position):
                    mapped = self._mapper(example)
            except UserError as error:
                lost.add(example["file_name"], str(error))
            else:
                return {**mapped, "lost": lost.reasons} if lost.reasons else mapped
        raise AssertionError("unreachable: the candidates have no end")

    def _candidates(self, position: int, first: int) -> Iterator[int]:
        """The image of a position, then those that take its place in turn."""
        yield first
        generator = np.random.default_rng((self.seed, 3, position))
        while True:
            yield int(generator.integers(len(self._dataset)))


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
        stream: the examples; its seed is one that may be set before iterating, too.
        lost: the images that this process's batches had to do without.
    """

    def __init__(
        self, stream: SeededStream, batch_size: int, num_workers: int = 0, allowed: int = 0
    ) -> None:
        """Serve ``stream`` in batches.

        Args:
            stream: the examples.
            batch_size: over all processes; each gets its share.
            num_workers: loading processes of each training process; 0: load in the process itself.
            allowed: how many images may be lost; iterating raises a :class:`UserError` then.
        """
        world = comm.get_world_size()
        if batch_size < 1 or batch_size % world:
            raise UserError(
                f"config key SOLVER.IMS_PER_BATCH: {batch_size} images cannot be shared among "
                f"{world} processes; make it a multiple of {world}"
            )
        self.stream = stream
        self._batch_size = batch_size
        self._num_workers = num_workers
        self.start_iter = 0
        self.lost = LostImages(allowed)

    def __iter__(self) -> Iterator[list[Example]]:
        world = comm.get_world_size()
        start = self.start_iter * self._batch_size + comm.get_rank()
        loader = DataLoader(
            self.stream,
            batch_size=self._batch_size // world,
            sampler=_Positions(start, step=world),
            num_workers=self._num_workers,
            collate_fn=_as_list,
            worker_init_fn=loading_init(),
            # else starting the loader draws from the generator that the model draws from
            generator=torch.Generator(),
        )
        for batch in loader:
            for example in batch:
                for file, reason in example.pop("lost", {}).items():
                    self.lost.add(file, reason)
            yield batch


def build_test_loader(
    dataset: Sequence[Example], mapper: Mapper, batch_size: int = 1, num_workers: int = 0
) -> DataLoader[Example]:
    """One pass over ``dataset`` in order, each process over its share, in lists of examples."""
    return DataLoader(
        MapDataset(DatasetFromList(list(dataset), copy=False), mapper),
        batch_size=batch_size,
        sampler=own_share(len(dataset), batch_size, comm.get_rank(), comm.get_world_size()),
        num_workers=num_workers,
        collate_fn=_as_list,
        worker_init_fn=loading_init(),
    )


def _as_list(batch: list[Example]) -> list[Example]:
    return batch
