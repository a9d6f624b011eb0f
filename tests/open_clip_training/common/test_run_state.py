"""What training runs share."""

from __future__ import annotations

import pytest

from open_clip_training.common.run_state import learning_rate


def test_learning_rate_rises_and_falls():
    rates = [learning_rate(step, 10, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[99] < 0.001
