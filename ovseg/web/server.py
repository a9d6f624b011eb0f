"""Serves the page. Nothing but what visitors ask for goes over the network, in or out."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.utils.package_files import package_folder
from ovseg.web.handlers import Handlers
from ovseg.web.tasks import Tasks

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ovseg.web.events import ExampleImage

# Gradio reads these when it is imported and when a page is built. It keeps a record of the last
# 10 000 requests, and after each of them makes a table of all these; nobody looks at it here.
_GRADIO = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
}
# the samples of a clone, which an installation does not have, and words that fit them
_FOLDER = package_folder("resources") / "samples"
_SAMPLES = {
    "flamingo.jpg": ("flamingo", "forest", "gravel", "water"),
    "ball.jpg": ("soccer ball", "teapot", "night sky", "grass"),
    "fries.jpg": ("french fries", "eggplant", "painted wall", "carpet"),
    "maple_leaf.jpg": ("maple leaf", "sunset sky", "sand", "snow"),
    "mouse.jpg": ("mouse", "stone wall", "gravel", "carpet"),
    "peacock.jpg": ("peacock", "forest", "grass"),
}


@dataclass(frozen=True)
class Limits:
    """What the server allows.

    Attributes:
        max_upload: bytes of an image's file.
        queue: how many requests may wait.
        sessions: of how many visitors, those who came last, is kept what they see.
    """

    max_upload: int = 20 * 2**20
    queue: int = 20
    sessions: int = 200


def examples() -> list[ExampleImage]:
    """The samples that are there, with their class names."""
    from ovseg.web.events import ExampleImage

    images = {_FOLDER / name: words for name, words in _SAMPLES.items()}
    return [ExampleImage(path, words) for path, words in images.items() if path.is_file()]


def build_app(
    tasks: Tasks, folder: Path, limits: Limits, auth: tuple[str, str] | None = None
) -> FastAPI:
    """The page as an ASGI application.

    Args:
        tasks: answers what visitors ask for.
        folder: for uploads and results; it exists.
        limits: of what visitors may do.
        auth: a user's name and password that everybody has to give.
    """
    os.environ.update({**_GRADIO, "GRADIO_TEMP_DIR": str(folder)})
    import gradio as gr
    from fastapi import FastAPI

    from ovseg.web.page import STYLE, build_page, theme

    page = build_page(Handlers(tasks, folder), examples(), limits.queue)
    # Gradio looks only in launched pages whether a file that a request names is an upload; without
    # this any image of the server could be asked for
    page.has_launched = True
    page.state_session_capacity = limits.sessions  # by default Gradio keeps 10 000
    return gr.mount_gradio_app(
        FastAPI(openapi_url=None), page, path="/", allowed_paths=[str(_FOLDER)],
        auth=auth, max_file_size=limits.max_upload, theme=theme(), css=STYLE, footer_links=[],
        run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False,
        show_error=False,
    )  # fmt: skip


def serve(app: Any, listening: socket.socket) -> None:
    """Serve until Ctrl+C."""
    import uvicorn

    # a page that is open keeps a connection; it is not waited for
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def run(
    tasks: Tasks, listening: socket.socket, limits: Limits, auth: tuple[str, str] | None = None
) -> None:
    """Build the page and serve it; uploads and results are deleted at the end."""
    # to be told to end is an end like Ctrl+C: it cleans up
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory(prefix="ovseg-web-") as folder:
        serve(build_app(tasks, Path(folder), limits, auth), listening)
