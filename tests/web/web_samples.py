"""Images for the page, and where its tests find a browser."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ovseg.utils.package_files import package_folder

SAMPLES = package_folder("resources") / "samples"
FLAMINGO, BALL = SAMPLES / "flamingo.jpg", SAMPLES / "ball.jpg"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: of a browser in tests
FLAGS = [
    # no talk with its maker
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    # whatever machine it runs on, also as root
    "--disable-gpu",
    "--no-sandbox",
    # what the page would ask of other servers fails, and is noticed
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def find_browser() -> str | None:
    """Chromium or its kin: $OVSEG_BROWSER, or what is on the path."""
    named = os.environ.get("OVSEG_BROWSER")
    return named or next(filter(None, map(shutil.which, _BROWSERS)), None)


def picture_of(path: Path) -> dict[str, str]:
    """The record of an upload, as the page hands it on."""
    return {"path": str(path), "orig_name": path.name}
