#!/usr/bin/env python3
"""The web page under several clients with good and bad uploads: are the answers those of one, and
how much does the memory of the server grow?

    python tools/soak_web.py --clients 8 --minutes 5

Starts `ovseg web` with the embedded model. Each client asks at random for images of several sizes,
known and ever-new words, files that are no images or too large, and words that cannot be used. What
each gives alone is asked for first. The exit code is 1 when an answer differs, the server ends, or
its memory grows by 5 % or more from the end of the first fifth of the time to the end.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovseg.errors import Parser, UserError, cli_errors

_API = "/gradio_api"
_PATIENCE = 300.0  # seconds for an answer
_MOST_GROWTH = 0.05


def image_bytes(width: int, height: int, seed: int) -> bytes:
    """A PNG of coloured blocks."""
    rng = np.random.default_rng(seed)
    blocks = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    stream = io.BytesIO()
    blocks.resize((width, height), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


def bomb() -> bytes:
    """A small PNG that says it has 60 000 x 60 000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


SOUND = {f"sound {n}": image_bytes(60 + 17 * n, 90 - 8 * n, n) for n in range(5)}
BROKEN = {
    "text": b"no image", "empty": b"", "cut off": SOUND["sound 1"][:90], "bomb": bomb(),
    "noise": np.random.default_rng(0).bytes(3000),
}  # fmt: skip
WORDS = ["grass\nwater\nbrick wall", "sea | ocean\nsand", "flamingo"]
WRONG = ["", "grass\nGrass", "a\n|", "\n".join(f"word {n}" for n in range(2000))]


class Page:
    """A client of the page."""

    def __init__(self, address: str, anew: bool = False) -> None:
        """The page at ``http://HOST:PORT``; ``anew``: each question comes from a new visitor."""
        self._address = address
        self._anew = anew
        self._session = uuid.uuid4().hex
        config = json.loads(self._read("/config"))
        (button,) = (
            part["id"] for part in config["components"] if part["props"].get("elem_id") == "segment"
        )
        self._event = next(
            event["id"] for event in config["dependencies"] if [button, "click"] in event["targets"]
        )

    def _read(self, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        asked = urllib.request.Request(self._address + path, body, {"Content-Type": kind})
        with urllib.request.urlopen(asked, timeout=_PATIENCE) as answer:
            content: bytes = answer.read()
        return content

    def upload(self, content: bytes) -> str:
        """Where the server put a file."""
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="photo.png"\r\n'
        body = head.encode() + b"\r\n" + content + f"\r\n--{mark}--\r\n".encode()
        kind = f"multipart/form-data; boundary={mark}"
        (path,) = json.loads(self._read(f"{_API}/upload", body, kind))
        return str(path)

    def ask(self, content: bytes, words: str) -> tuple[bool, str]:
        """Whether an image is segmented, and into what; or the message."""
        if self._anew:
            self._session = uuid.uuid4().hex
        image = {"path": self.upload(content), "orig_name": "photo.png",
                 "meta": {"_type": "gradio.FileData"}}  # fmt: skip
        data = [image, words, "tiny", 0.65, 0.5, 0.0, 0.5, None]
        session = self._session
        body = {"data": data, "fn_index": self._event, "session_hash": session, "trigger_id": None}
        self._read(f"{_API}/queue/join", json.dumps(body).encode())
        message = self._last_message(f"{_API}/queue/data?session_hash={session}")
        if not message["success"]:
            return False, str(message["output"]["error"])
        _, _, status, areas = message["output"]["data"][:4]
        found = str(status).split(" · ")[:2]  # after these comes how long it took
        return True, json.dumps([found, areas["data"]])

    def _last_message(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self._address + path, timeout=_PATIENCE) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    message: dict[str, Any] = json.loads(line[6:])
                    if message["msg"] in {"process_completed", "unexpected_error"}:
                        return message
        raise UserError("the server ended an answer before it was whole; look at its log")


def requests() -> dict[str, tuple[bytes, str]]:
    """What is asked for, by name."""
    good = {f"{name}, words {n}": (content, words) for name, content in SOUND.items()
            for n, words in enumerate(WORDS)}  # fmt: skip
    broken = {name: (content, WORDS[0]) for name, content in BROKEN.items()}
    wrong = {f"wrong words {n}": (SOUND["sound 0"], words) for n, words in enumerate(WRONG)}
    return good | broken | wrong


def soak(
    address: str, process: int, clients: int, seconds: float, new_visitors: bool = False
) -> list[str]:
    """Ask for everything alone, then by several clients at once; what went wrong, and a report.

    Args:
        address: of the page.
        process: of the server, for its memory.
        clients: that ask at the same time.
        seconds: how long they do.
        new_visitors: each question comes from another visitor.

    Returns:
        A line for each fault.
    """
    asked = requests()
    page = Page(address)
    alone = {name: page.ask(*request) for name, request in asked.items()}
    succeeded = sum(good for good, _ in alone.values())
    print(f"alone: {succeeded} answers, {len(alone) - succeeded} messages", flush=True)
    faults: list[str] = []
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        rng = random.Random(number)
        mine = Page(address, new_visitors)
        while time.monotonic() < end:
            try:
                name = rng.choice([*asked, "new words"])
                if name == "new words":
                    new = "\n".join(f"{rng.randrange(10**9)} thing" for _ in range(20))
                    good, said = mine.ask(SOUND["sound 2"], new)
                    if not good:
                        faults.append(f"new words: {said}")
                else:
                    good, said = mine.ask(*asked[name])
                    if (good, said) != alone[name]:
                        faults.append(f"{name}: {said[:200]}, alone {alone[name][1][:200]}")
                counts["answers" if good else "messages"] += 1
            except Exception as error:
                faults.append(f"client {number}: {type(error).__name__} {error}")
                return

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 5)
    warm = resident(process)
    for thread in threads:
        thread.join()
    after = resident(process)
    growth = after / warm - 1 if warm else 0.0
    print(
        f"{clients} clients, {seconds:.0f} s: {counts['answers']} answers, {counts['messages']} "
        f"messages; memory {warm:.0f} MiB after the first fifth, {after:.0f} MiB at the end "
        f"({100 * growth:+.1f} %)"
    )
    if not after:
        faults.append("the server has ended")
    if growth >= _MOST_GROWTH:
        faults.append(f"memory grew by {100 * growth:.1f} %")
    return faults


def resident(process: int) -> float:
    """Memory of a process in MiB, as Linux tells it; 0 when it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """`ovseg web` on a free port; its process and address, once it answers.

    Raises:
        UserError: it does not.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ovseg", "web", "--port", str(port), "--queue", "100",
               "--opts", "MODEL.DEVICE", "cpu"]  # fmt: skip
    environment = {**os.environ, "OVSEG_HOME": str(folder)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/config", timeout=_PATIENCE):
                return process, address
        except OSError:
            time.sleep(0.5)
    process.kill()
    raise UserError("ovseg web does not start; it needs Gradio: pip install 'ovseg[web]'")


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(__doc__)
    parser.add_argument("--clients", type=int, default=8, help="default: 8")
    parser.add_argument("--minutes", type=float, default=5.0, help="default: 5")
    parser.add_argument(
        "--new-visitors", action="store_true", help="each question comes from a new visitor"
    )
    return parser


def main() -> None:
    """Soak a server of its own."""
    with cli_errors(), tempfile.TemporaryDirectory() as folder:
        args = build_parser().parse_args()
        process, address = start(Path(folder))
        try:
            faults = soak(address, process.pid, args.clients, 60 * args.minutes, args.new_visitors)
        finally:
            process.terminate()
            process.wait()
        for fault in faults[:20]:
            print(f"error: {fault}", file=sys.stderr)
        print(f"{len(faults)} faults")
        raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
