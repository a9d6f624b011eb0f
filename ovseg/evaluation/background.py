"""Counting while the model works on the next images."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from detectron2.evaluation import DatasetEvaluator

# batches that wait to be counted; more of them would only hold memory
_WAITING = 2


class CountInBackground(DatasetEvaluator):
    """Another evaluator, whose images are counted by one thread in their order.

    An error of the counting is raised by a later call.
    """

    def __init__(self, evaluator: DatasetEvaluator) -> None:
        """``evaluator`` must not be used by anybody else until :meth:`evaluate` has returned."""
        self.evaluator = evaluator
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="counting")
        self._waiting: list[Future[None]] = []

    def reset(self) -> None:
        """Forget all images."""
        self._wait(0)
        self.evaluator.reset()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Have a batch counted; arguments as those of the evaluator."""
        self._wait(_WAITING - 1)
        self._waiting.append(self._thread.submit(self.evaluator.process, inputs, outputs))

    def evaluate(self) -> Any:
        """The evaluator's results, when all is counted."""
        self._wait(0)
        return self.evaluator.evaluate()

    def _wait(self, at_most: int) -> None:
        while len(self._waiting) > at_most:
            self._waiting.pop(0).result()
