"""Commands in a process of their own, and commands that are interrupted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_process(
    *command: str | Path, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What a command said; on one thread, with the project on its path, whatever its exit code."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def interrupt_call(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, number: int
) -> list[None]:
    """Ctrl-C at the ``number``-th call, from 1, of a method; a list that grows with each call."""
    called = getattr(owner, method)
    seen: list[None] = []

    def interrupted(self: Any, *arguments: Any) -> Any:
        seen.append(None)
        if len(seen) == number:
            raise KeyboardInterrupt
        return called(self, *arguments)

    monkeypatch.setattr(owner, method, interrupted)
    return seen
