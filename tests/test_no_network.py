"""Importing OVSeg, all of it, asks nobody on a network for anything."""

from __future__ import annotations

import json
import subprocess
import sys

from conftest import ROOT
from test_imports import FILES, module_of

# Python tells an audit hook of every call of the system that looks up or reaches an address,
# whoever makes it; a list keeps it where the error is swallowed.
GUARD = """
import importlib, json, sys
REFUSED = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind",
           "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
asked = []
def guard(event, arguments):
    if event in REFUSED:
        asked.append(f"{event} {arguments[1:]}")
        raise OSError("there is no network here")
sys.addaudithook(guard)
"""
IMPORT = """
lacking = set()
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        lacking.add(error.name.partition(".")[0])
print(json.dumps([asked, sorted(lacking)]))
"""
#: extras that the tests do without
OPTIONAL = {"gradio", "fastapi", "uvicorn", "openvino", "wandb", "pydensecrf"}


def guarded(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", GUARD + code, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


def test_importing_opens_no_connection() -> None:
    modules = [module_of(path) for path in FILES if path.name != "__main__.py"]
    asked, lacking = json.loads(guarded(IMPORT, json.dumps(modules)))
    assert asked == []
    assert set(lacking) <= OPTIONAL


def test_the_guard_sees_who_asks() -> None:
    code = """
import socket, urllib.request
for ask in (lambda: urllib.request.urlopen("http://example.org"),
            lambda: socket.create_connection(("127.0.0.1", 9))):
    try:
        ask()
    except OSError:
        pass
print(json.dumps([line.split()[0] for line in asked]))
"""
    assert json.loads(guarded(code)) == ["socket.getaddrinfo", "socket.getaddrinfo"]
