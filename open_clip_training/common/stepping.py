"""A training of one process, step by step: its bar, its saving, and its end when it is asked to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from ovseg.engine import stopping
from ovseg.utils.io import folder_stays

#: seconds after which a training is saved again
SAVE_SECONDS = 300.0
Batch = TypeVar("Batch")


class Run(Protocol):
    """What is trained.

    Attributes:
        step: how many steps are done; grows by one for each batch.
    """

    step: int

    @property
    def settings(self) -> Any:
        """With ``steps``, how many there are in all."""

    def save(self, output: Path) -> None:
        """Keep all that ``--resume`` needs, and the result so far."""


def stepped(
    run: Run, batches: Iterable[Batch], output: Path, every: int | None = None
) -> Iterator[tuple[tqdm[Any], Batch]]:
    """The batches of a run that are left; its caller takes a step with each.

    The run is saved after the last step, in between, and, where :func:`stopping.handled` is
    entered, after the step in which the process is asked to end.

    Args:
        run: at its first step, or at that which it goes on from.
        batches: one for each step that is left.
        output: see :meth:`Run.save`.
        every: steps after which it is saved; None: after five minutes.

    Yields:
        The progress bar, to show the loss in, and the batch.

    Raises:
        SystemExit: the process was asked to end, and the run is saved.
    """
    steps = run.settings.steps
    saved = time.monotonic()
    # an error is said on a line of its own
    with (
        tqdm(total=steps, initial=run.step, unit="step") as bar,
        folder_stays(output.parent),
        stopping.step_by_step("the training ends this step and is saved"),
    ):
        for batch in batches:
            yield bar, batch
            bar.update()
            ends = stopping.stop_wanted() and run.step < steps
            waited = time.monotonic() - saved > SAVE_SECONDS if every is None else False
            if ends or waited or run.step == steps or (every and run.step % every == 0):
                run.save(output)
                saved = time.monotonic()
            if ends:
                raise stopping.stopped()
