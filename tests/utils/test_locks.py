"""One process at a time, and the lock of a process that was killed is free."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import threading
import time
from pathlib import Path

import filelock
import pytest
from held_locks import held

from ovseg.utils.locks import Occupied, only_process


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "not_there_yet" / ".run.lock"
    with held(path) as other:
        with pytest.raises(Occupied, match="it is taken"), only_process(
            path, lambda: "it is taken", wait=0
        ):  # fmt: skip
            pytest.fail("both are inside")
        other.kill()
        other.wait()
        with only_process(path, lambda: "it is taken", wait=0):
            pass


def test_a_second_process_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, seen = tmp_path / ".run.lock", []
    caplog.set_level(logging.INFO, "ovseg.utils.locks")

    def enter() -> None:
        with only_process(path, lambda: "waiting"):
            seen.append(other.poll())

    with held(path) as other:
        thread = threading.Thread(target=enter)
        thread.start()
        until = time.monotonic() + 60
        while not caplog.messages and time.monotonic() < until:
            time.sleep(0.05)
        assert caplog.messages == ["waiting"]
        assert thread.is_alive()
        other.kill()
        other.wait()
        thread.join(timeout=60)
    assert seen == [-9]


def _nothing() -> None:
    pass


def _enter(path: Path) -> None:
    try:
        with only_process(path, str, wait=0):
            pass
    except Occupied:
        sys.exit(7)


def test_the_same_process_enters_again_and_its_children_do_not_end_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".run.lock"
    with only_process(path, str, wait=0):
        with only_process(path, str, wait=0):
            pass
        child = multiprocessing.get_context("fork").Process(target=_nothing)
        child.start()
        child.join()
        other = multiprocessing.get_context("spawn").Process(target=_enter, args=(path,))
        other.start()
        other.join()
        assert other.exitcode == 7


def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with only_process(tmp_path / ".run.lock", str, wait=0):
        assert "no locks on this file system" in caplog.text
