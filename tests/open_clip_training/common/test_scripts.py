"""The log goes to what is stderr at that time, as where one process does several runs."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stderr

import pytest

from open_clip_training.common.scripts import log_to_stderr


def test_each_run_has_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs = [io.StringIO(), io.StringIO()]
    for number, log in enumerate(logs):
        with redirect_stderr(log):
            log_to_stderr()
            logging.getLogger("train").info("run %d", number)
    assert [log.getvalue().split(" ", 2)[2] for log in logs] == ["run 0\n", "run 1\n"]
    assert len(logging.getLogger().handlers) == 1
