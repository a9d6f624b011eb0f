"""Counting in a thread: in order, within bounds, and no error is lost."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from detectron2.evaluation import DatasetEvaluator

from ovseg.evaluation import CountInBackground


class Counter(DatasetEvaluator):
    """Notes what it is given; waits until it may count, and fails on "bad"."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.threads: set[int] = set()
        self.may_count = threading.Event()
        self.may_count.set()

    def reset(self) -> None:
        self.seen = []

    def process(self, inputs: list[Any], outputs: list[Any]) -> None:
        assert self.may_count.wait(20)
        self.threads.add(threading.get_ident())
        if "bad" in inputs:
            raise ValueError("a bad image")
        self.seen += zip(inputs, outputs, strict=True)

    def evaluate(self) -> int:
        return len(self.seen)


def test_batches_are_counted_in_order_by_one_other_thread() -> None:
    counter = Counter()
    background = CountInBackground(counter)
    background.reset()
    counter.may_count.clear()
    background.process(["a"], [0])  # returns, though it is not counted yet
    background.process(["b", "c"], [1, 2])
    assert counter.seen == []
    counter.may_count.set()
    for place in range(50):
        background.process([place], [place])
    assert background.evaluate() == 53
    assert counter.seen == [("a", 0), ("b", 1), ("c", 2), *((n, n) for n in range(50))]
    assert len(counter.threads) == 1
    assert threading.get_ident() not in counter.threads
    background.reset()
    assert background.evaluate() == 0


def test_errors_are_raised() -> None:
    background = CountInBackground(Counter())
    background.process(["bad"], [0])
    with pytest.raises(ValueError, match="a bad image"):
        background.evaluate()
