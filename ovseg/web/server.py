"""Serves the page. Nothing but what visitors ask for goes over the network, in or out."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.errors import UserError
from ovseg.utils.package_files import package_folder
from ovseg.web.handlers import Handlers
from ovseg.web.tasks import Tasks

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ovseg.web.page import Example

# the samples of a clone, which an installation does not have, and words that fit them
_SAMPLES = {
    "flamingo.jpg": ("flamingo", "sunset sky", "water", "sand", "grass"),
    "ball.jpg": ("soccer ball", "grass", "blue sky", "brick wall"),
    "fries.jpg": ("french fries", "wood floor", "painted wall"),
    "maple_leaf.jpg": ("maple leaf", "road", "grass"),
    "mouse.jpg": ("mouse", "carpet", "painted wall"),
    "peacock.jpg": ("peacock", "grass", "forest", "night sky"),
}


@dataclass(frozen=True)
class Limits:
    """What the server allows.

    Attributes:
        max_upload: bytes of a picture's file.
        queue: how many requests may wait.
    """

    max_upload: int = 20 * 2**20
    queue: int = 20


def examples() -> list[Example]:
    """The samples that are there, with their class names."""
    from ovseg.web.page import Example

    folder = package_folder("resources") / "samples"
    return [
        Example(folder / name, words) for name, words in _SAMPLES.items() if (folder / name).is_file()
    ]


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
    # read when Gradio is imported, and when a page is built
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    import gradio as gr
    from fastapi import FastAPI

    from ovseg.web.page import STYLE, build_page, theme

    page = build_page(Handlers(tasks, folder), examples(), limits.queue)
    # Gradio looks only in launched pages whether a file that a request names is an upload; without
    # this any picture of the server could be asked for
    page.has_launched = True
    return gr.mount_gradio_app(
        FastAPI(openapi_url=None), page, path="/",
        auth=auth, max_file_size=limits.max_upload, theme=theme(), css=STYLE, footer_links=[],
        run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False,
        show_error=False,
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for visitors.

    Raises:
        UserError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--host {host} --port {port} cannot be used ({reason}); give another --port"
        ) from error


def address(listening: socket.socket) -> str:
    """Where visitors find a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
    with tempfile.TemporaryDirectory(prefix="ovseg-web-") as folder:
        serve(build_app(tasks, Path(folder), limits, auth), listening)
