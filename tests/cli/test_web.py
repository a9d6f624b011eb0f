"""``ovseg web``: what is wrong with a command line, who may visit, and which models there are."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest
from tiny_world import CONFIGS

from ovseg.cli import web
from ovseg.errors import UserError
from ovseg.released import RELEASED
from ovseg.utils.package_files import package_folder
from ovseg.web.listen import address, is_loopback, listen

TINY_CONFIG = str(CONFIGS / "ovseg_tiny_demo.yaml")


def models_of(*arguments: str):
    return web.loaders(web.build_parser().parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--auth", "anna"], "$OVSEG_WEB_AUTH) must be USER:PASSWORD"),
        (["--auth", ":secret"], "--auth (or $OVSEG_WEB_AUTH) must be USER:PASSWORD"),
        (["--auth", "anna:"], "--auth (or $OVSEG_WEB_AUTH) must be USER:PASSWORD"),
        (["--max-upload", "0"], "--max-upload 0.0 must be a number above 0"),
        (["--max-upload", "nan"], "--max-upload nan must be a number above 0"),
        (["--max-upload", "inf"], "--max-upload inf must be a number above 0"),
        (["--max-side", "-3"], "--max-side -3 must be a number above 0"),
        (["--queue", "0"], "--queue 0 must be a number above 0"),
        (["--keep-encoded", "0"], "--keep-encoded 0 must be a number above 0"),
        (["--port", "70000"], "--port 70000 must be in 0..65535"),
        (["--port", "web"], "invalid int value: 'web'; see --help"),
        (
            ["--runtime", "a", "--model", "tiny"],
            "--runtime and --model, --config-file, --speed or --opts are",
        ),
        (["--config-file", "gone.yaml"], "--config-file 'gone.yaml': no such"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        web.main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_password_may_hold_colons_and_stand_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = web.build_parser().parse_args(["--auth", "anna:a:b"])
    assert web.check_arguments(args) == ("anna", "a:b")
    assert web.check_arguments(web.build_parser().parse_args([])) is None
    monkeypatch.setenv("OVSEG_WEB_AUTH", "berta:b")
    assert web.check_arguments(web.build_parser().parse_args([])) == ("berta", "b")
    assert web.check_arguments(args) == ("anna", "a:b")


def test_gradio_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        web.main([])
    assert "pip install 'ovseg[web]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("example.org", False),
    ],
)  # fmt: skip
def test_who_can_reach_a_host(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_port_that_is_taken_is_told() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert address(listening) == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        with pytest.raises(
            UserError, match=rf"--port {port} cannot be used .*; give another --port$"
        ):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match="--port"):
        listen("127.0.0.1", 99999)
    # the second is kept for documentation, so that no machine has it
    for host in ("not.a.host.invalid", "192.0.2.1"):
        with pytest.raises(UserError, match=rf"--host {host} .*; give another --host$"):
            listen(host, 0)


@pytest.mark.parametrize(("password", "guard"), [(False, "there is no password"), (True, "typed")])
def test_an_open_page_is_warned_of(
    password: bool, guard: str, capsys: pytest.CaptureFixture[str]
) -> None:
    web._warn_of_visitors("0.0.0.0", with_password=password)
    line = capsys.readouterr().err
    assert line.startswith("warning: --host 0.0.0.0 opens the page to other machines")
    assert guard in line


def test_models_to_choose_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OVSEG_HOME", str(tmp_path))
    assert list(models_of()) == ["tiny"]
    released = RELEASED["swinB-vitL14"].path
    released.parent.mkdir(parents=True)
    released.touch()  # names are offered by what is there; it is read when it is chosen
    assert list(models_of()) == ["tiny", "swinB-vitL14"]
    assert list(models_of("--model", "swinB-vitL14")) == ["swinB-vitL14", "tiny"]
    assert list(models_of("--model", "hf://a/b")) == ["hf://a/b", "tiny", "swinB-vitL14"]


def test_the_model_of_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OVSEG_HOME", str(tmp_path))
    weights = package_folder("resources") / "ovseg_tiny.pth"
    own = tmp_path / "my_model.pth"
    own.write_bytes(weights.read_bytes())
    threshold = ("--opts", "MODEL.DEVICE", "cpu", "MODEL.CLIP_ADAPTER.MASK_THR", "0.3")
    for arguments, label in (
        (("--config-file", TINY_CONFIG), "ovseg_tiny_demo"),
        (("--model", str(own), "--config-file", TINY_CONFIG), "my_model"),
        (("--model", "tiny"), "tiny"),
    ):
        models = models_of(*arguments, *threshold)
        assert list(models) == [label, *(["tiny"] if label != "tiny" else [])]
        assert models[label]().cfg.MODEL.CLIP_ADAPTER.MASK_THR == 0.3
        models = models_of(*arguments, "--speed", "fast", *threshold)
        assert models[label]().cfg.MODEL.CLIP_ADAPTER.CROPS == "visible"
    with pytest.raises(UserError, match="gone"):
        models_of("--model", "gone")["gone"]()
