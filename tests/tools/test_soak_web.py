"""The page under eight clients with good and bad uploads, for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'ovseg[web]'")

from tools.soak_web import soak, start


@pytest.mark.slow
def test_eight_clients_get_the_answers_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process, address = start(tmp_path)
    try:
        faults = soak(address, process.pid, clients=8, seconds=8.0)
    finally:
        process.terminate()
        process.wait()
    # memory is not measured in so short a time
    assert [fault for fault in faults if not fault.startswith("memory grew")] == []
    said = capsys.readouterr().out
    assert "alone: 15 answers, 9 messages" in said
    assert "8 clients, 8 s: " in said
