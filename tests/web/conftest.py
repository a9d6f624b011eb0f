"""The embedded model for the page; and a loud word where no browser was found for it."""

from __future__ import annotations

import pytest

from ovseg.predictor import Predictor
from ovseg.web.models import Models


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    return Predictor.from_pretrained("tiny", device="cpu")


@pytest.fixture
def models(predictor: Predictor) -> Models:
    return Models({"tiny": lambda: predictor})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it loudly when the page was not tried in a browser."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = {
        report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in skipped
        if "browser" in getattr(report, "keywords", ())
    }
    if reasons:
        terminalreporter.section("THE WEB PAGE WAS NOT TRIED IN A BROWSER", red=True, bold=True)
        for reason in sorted(reasons):
            terminalreporter.line(reason)
