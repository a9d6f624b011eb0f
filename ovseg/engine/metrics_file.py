"""``metrics.json`` of a training that goes on."""

from __future__ import annotations

import json
from pathlib import Path

from ovseg.utils.io import write_text


def drop_later_metrics(file: Path, first: int) -> None:
    """Remove the lines that a training will write anew when it goes on from a checkpoint.

    They are those from iteration ``first`` on, and a last line that a killed run has left broken.
    """
    if not file.is_file():
        return
    lines = file.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if _iteration(line) < first]
    if kept != lines:
        write_text(file, "".join(f"{line}\n" for line in kept))


def _iteration(line: str) -> float:
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
