"""How far a collection is, and the time left: a bar on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TextIO

from tqdm import tqdm

from ovseg.labelling.plan import Shard
from ovseg.utils.counting import counted

_EVERY = 60.0  # seconds between lines


class LabelProgress:
    """Counts images. What shards of unknown size hold is guessed by those that are done."""

    def __init__(
        self, shards: Iterable[Shard], done: dict[int, int], stream: TextIO | None = None
    ) -> None:
        """
        Args:
            shards: all there are.
            done: rows of each shard that is done already, by number.
            stream: where to write; None: stderr.
        """
        self._stream = stream or sys.stderr
        self._sizes = {shard.number: done.get(shard.number, shard.images) for shard in shards}
        self._before = self._counted = sum(done.values())
        self._began = self._said = time.monotonic()
        if done:
            shards_there = f"{len(done)} of {counted(len(self._sizes), 'shard')}"
            self._stream.write(f"{shards_there} there already\n")
        self._bar = tqdm(
            total=self.total(), initial=self._before, unit="image", file=self._stream,
            disable=not self._stream.isatty(),
        )  # fmt: skip

    def total(self) -> int | None:
        """Images of the collection, as far as can be told; None: not at all."""
        known = [size for size in self._sizes.values() if size is not None]
        if not known and self._sizes:
            return None
        unknown = len(self._sizes) - len(known)
        return sum(known) + round(unknown * sum(known) / max(len(known), 1))

    def seen(self, pictures: int) -> None:
        """Count images that are done."""
        self._counted += pictures
        self._bar.update(pictures)
        now = time.monotonic()
        if self._bar.disable and now - self._said > _EVERY:
            self._said = now
            self._stream.write(f"{self.line(now - self._began)}\n")
            self._stream.flush()

    def finished(self, shard: Shard, rows: int) -> None:
        """Tell how many images a shard turned out to have."""
        self._sizes[shard.number] = rows
        self._bar.total = self.total()

    def line(self, seconds: float) -> str:
        """``1200 of 5000 images, 3.1 a second, 0:20:24 left`` after so many seconds."""
        total = self.total()
        rate = (self._counted - self._before) / max(seconds, 1e-9)
        said = f"{self._counted} of {total or 'unknown'} images, {rate:.1f} a second"
        if total is None or not rate:
            return said
        left = max(total - self._counted, 0) / rate
        return f"{said}, {tqdm.format_interval(left)} left"

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
