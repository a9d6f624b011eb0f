"""A web server on this machine that stands in for Google Drive and the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LocalServer:
    """What it serves, and what it was asked for.

    Args:
        files: content by path.
        breaks_after: bytes after which the next answer breaks off; None: not at all.
        refuses: status of every answer; None: it serves.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    breaks_after: int | None = None
    refuses: int | None = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    address: str = ""

    def gets(self, path: str) -> list[str | None]:
        """The ranges of all requests for the content of ``path``, in their order."""
        return [bytes_ for method, asked, bytes_ in self.asked if (method, asked) == ("GET", path)]


@contextmanager
def serving(**files: bytes) -> Iterator[LocalServer]:
    """Serve files at http://127.0.0.1, with ranges, until the block ends."""
    state = LocalServer({f"/{name}": content for name, content in files.items()})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path, asked = self.path.split("?")[0], self.headers.get("Range")
            state.asked.append((self.command, path, asked))
            content = state.files.get(path)
            if state.refuses or content is None:
                self.send_response(state.refuses or 404)
                # as the Hub answers where the repository is there and the file is not
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
            part = content[start:]
            self.send_response(206 if asked else 200)
            if asked:
                end = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                if state.breaks_after is not None:
                    part, state.breaks_after = part[: state.breaks_after], None
                    self.close_connection = True
                self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
