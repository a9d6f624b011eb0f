"""The page as it is served, without a browser: its limits, and that nothing leaves the machine."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from web_samples import FLAMINGO, SAMPLES

from ovseg.errors import UserError
from ovseg.predictor import Predictor
from ovseg.web.models import Models
from ovseg.web.tasks import Tasks

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'ovseg[web]'")
from fastapi.testclient import TestClient
from gradio.state_holder import StateHolder

from ovseg.web.server import _GRADIO, Limits, build_app

LIMITS = Limits(max_upload=300_000, queue=5)
API = "/gradio_api"
TEXT = "flamingo\nforest\ngravel"


@pytest.fixture
def models(embedded: Predictor) -> Models:
    return Models({"tiny": lambda: embedded})


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hosts whose addresses are looked up, and addresses that are connected to."""
    found: list[str] = []
    lookup, connect = socket.getaddrinfo, socket.socket.connect

    def getaddrinfo(host: Any, *more: Any, **options: Any) -> Any:
        found.append(str(host))
        return lookup(host, *more, **options)

    def connected(self: socket.socket, place: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            found.append(str(place[0]))
        connect(self, place)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", connected)
    return found


@pytest.fixture
def client(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked_for: list[str]
) -> Iterator[TestClient]:
    # build_app sets them
    for name in ("GRADIO_TEMP_DIR", *_GRADIO):
        monkeypatch.setenv(name, "")
    with TestClient(build_app(Tasks(models), tmp_path, LIMITS)) as client:
        yield client


def upload(client: TestClient, content: bytes, name: str = "photo.png") -> Any:
    return client.post(f"{API}/upload", files={"files": (name, content)})


def noise(side: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def event(client: TestClient, part: str, name: str) -> dict[str, Any]:
    """The first event of the part with that element id."""
    config = client.get("/config").json()
    (ident,) = [c["id"] for c in config["components"] if c["props"].get("elem_id") == part]
    return next(d for d in config["dependencies"] if [ident, name] in d["targets"])


def join(client: TestClient, data: list[Any], session: str) -> Any:
    """Press the button with these values."""
    found = event(client, "segment", "click")
    body = {"data": data, "fn_index": found["id"], "session_hash": session, "trigger_id": None}
    return client.post(f"{API}/queue/join", json=body)


def call(client: TestClient, data: list[Any], session: str = "a") -> dict[str, Any]:
    """Press the button; the last message of the page's stream."""
    joined = join(client, data, session)
    assert joined.status_code == 200, joined.text
    with client.stream("GET", f"{API}/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                message = json.loads(line.removeprefix("data: "))
                if message["msg"] in ("process_completed", "unexpected_error"):
                    return message
    raise AssertionError("no answer")


def values(path: str, text: str = TEXT) -> list[Any]:
    image = {"path": path, "orig_name": "photo.jpg", "meta": {"_type": "gradio.FileData"}}
    return [image, text, "tiny", 0.65, 0.5, 0.0, 0.5, None]


def outside(places: list[str]) -> list[str]:
    return [place for place in places if not re.match(r"127\.|localhost|::1|testserver", place)]


def test_a_picture_is_segmented_and_nothing_leaves_the_machine(
    client: TestClient, asked_for: list[str]
) -> None:
    page = client.get("/")
    assert page.status_code == 200
    # what a browser would fetch by itself
    fetched = r"<(?:script|link|img)[^>]*(?:src|href)=.https?://(?!testserver)"
    assert not re.findall(fetched, page.text)
    (path,) = upload(client, FLAMINGO.read_bytes(), "photo.jpg").json()
    message = call(client, values(path))
    assert message["success"], message
    _, result, status, areas = message["output"]["data"][:4]
    names = [annotation["label"] for annotation in result["value"]["annotations"]]
    assert sorted(names) == ["flamingo", "forest", "gravel"]
    assert "3 of 3 classes found" in status
    assert [row[0] for row in areas["data"]][:3] == names  # both have the largest first
    # the browser's part that shows it is Gradio's own
    parts = client.get("/config").json()["components"]
    assert [p["type"] for p in parts if p["props"].get("elem_id") == "result"] == ["annotatedimage"]
    assert outside(asked_for) == []


def test_what_is_wrong_is_told_in_one_line(client: TestClient) -> None:
    (path,) = upload(client, b"no image").json()
    message = call(client, values(path))
    assert not message["success"]
    assert "photo.jpg&#x27; cannot be read as an image" in message["output"]["error"]
    assert path not in message["output"]["error"]
    (path,) = upload(client, noise(8)).json()
    message = call(client, values(path, text="<b>x</b>\n<b>X</b>"))
    assert "&lt;b&gt;X&lt;/b&gt;" in message["output"]["error"]
    assert "<b>" not in message["output"]["error"]


def test_what_nobody_foresaw_is_told_without_details(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("details")

    monkeypatch.setattr(Tasks, "answer", fail)
    (path,) = upload(client, noise(8)).json()
    message = call(client, values(path))
    assert message["output"]["error"] == "This did not work; the server's log says why."
    assert "RuntimeError: details" in caplog.text


def test_addresses_are_not_fetched(client: TestClient, asked_for: list[str]) -> None:
    message = call(client, values("http://images.invalid/photo.jpg"))
    assert "its address is not enough" in message["output"]["error"]
    assert outside(asked_for) == []


@pytest.mark.parametrize("folder", ["outside", "samples"])
def test_files_of_the_server_are_no_uploads(
    client: TestClient, tmp_path_factory: pytest.TempPathFactory, folder: str
) -> None:
    image = FLAMINGO
    if folder == "outside":
        image = tmp_path_factory.mktemp("private") / "private.png"
        image.write_bytes(noise(16))
        served = client.get(f"{API}/file={image}")
        assert served.status_code == 403
    message = call(client, values(str(image)))
    assert not message["success"]


def test_uploads_have_a_limit(client: TestClient) -> None:
    small, large = noise(64), noise(400)
    assert len(small) < LIMITS.max_upload < len(large)
    assert upload(client, small).status_code == 200
    assert upload(client, large).status_code == 413


def test_the_queue_has_a_bound(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        begun.set()
        go_on.wait(60)
        raise UserError("late")

    monkeypatch.setattr(Tasks, "answer", wait)
    (path,) = upload(client, noise(8)).json()
    assert join(client, values(path), "first").status_code == 200
    assert begun.wait(60)  # it works, and the others wait
    codes = [
        join(client, values(path), f"visitor {n}").status_code for n in range(LIMITS.queue + 1)
    ]
    go_on.set()
    assert codes == [200] * LIMITS.queue + [503]


def test_what_visitors_see_is_kept_of_the_last_ones(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    class Watched(StateHolder):
        def __init__(self) -> None:
            super().__init__()
            found.append(self)

    monkeypatch.setattr("gradio.routes.StateHolder", Watched)
    app = build_app(Tasks(models), tmp_path, Limits(sessions=3))
    with TestClient(app) as client:
        path = upload(client, noise(8)).json()[0]
        for visitor in range(5):
            assert call(client, values(path), session=f"visitor {visitor}")["success"]
    held = [name for holder in found for name in holder.session_data]
    assert held == ["visitor 2", "visitor 3", "visitor 4"]


def test_one_thread_computes_and_no_request_is_kept(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    answer = Tasks.answer

    def watched(self: Tasks, *asked: Any) -> Any:
        threads.add(threading.current_thread().name)
        return answer(self, *asked)

    monkeypatch.setattr(Tasks, "answer", watched)
    app = build_app(Tasks(models), tmp_path, LIMITS)
    with TestClient(app) as client:
        path = upload(client, noise(8)).json()[0]
        for visitor in range(3):
            assert call(client, values(path), session=f"visitor {visitor}")["success"]
    assert len(threads) == 1
    assert threads.pop().startswith("computing")
    (queue,) = [
        route.app.get_blocks()._queue for route in app.routes
        if hasattr(getattr(route, "app", None), "get_blocks")
    ]  # fmt: skip
    assert queue.events_recorded == 3
    assert len(queue.event_analytics) == 1


def test_a_password_is_asked_for(models: Models, tmp_path: Path) -> None:
    app = build_app(Tasks(models), tmp_path, LIMITS, auth=("anna", "secret"))
    with TestClient(app) as client:
        assert client.get("/config").status_code == 401
        assert upload(client, noise(8)).status_code == 401
        wrong = client.post("/login", data={"username": "anna", "password": "guess"})
        assert wrong.status_code == 400
        right = client.post("/login", data={"username": "anna", "password": "secret"})
        assert right.status_code == 200
        assert client.get("/config").status_code == 200


def test_examples_are_there_in_a_clone(client: TestClient) -> None:
    config = client.get("/config").json()
    (examples,) = [c for c in config["components"] if c["props"].get("elem_id") == "examples"]
    assert len(examples["props"]["samples"]) == len(list(SAMPLES.glob("*.jpg"))) == 6


def test_an_installation_has_no_examples(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovseg.web.server._FOLDER", tmp_path / "none")
    with TestClient(build_app(Tasks(models), tmp_path, LIMITS)) as client:
        config = client.get("/config").json()
    (examples,) = [c for c in config["components"] if c["props"].get("elem_id") == "examples"]
    assert examples["props"]["samples"] == []
    assert examples["props"]["visible"] is False
