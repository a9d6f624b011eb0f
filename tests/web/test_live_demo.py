"""The documentation's live demo in a real Chromium: the runtime's labels, and no word to others.

Needs what ``make test-browser`` installs, a Chromium or Chrome, and npm for onnxruntime-web.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from web_samples import BALL, FLAGS, find_browser

from ovseg.runtime import Predictor

pytestmark = pytest.mark.browser

LIVE = ROOT / "docs" / "live"
NAMES = ["soccer ball", "teapot", "night sky", "grass"]
PATIENCE = 240_000  # milliseconds; WebAssembly with one thread, on a busy machine


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's part of the site."""
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome is installed; OVSEG_BROWSER names one")
    pytest.importorskip("playwright", reason="no playwright: pip install 'ovseg[web-test]'")
    if shutil.which("npm") is None and not (LIVE / "ort").is_dir():
        pytest.skip("no npm, which fetches onnxruntime-web")
    spec = importlib.util.spec_from_file_location("live", ROOT / "tools" / "build_live_demo.py")
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.fetch_runtime(LIVE / "ort")
    tool.export_embedded(LIVE / "model")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(LIVE, folder / "live")
    text = (ROOT / "docs" / "live.md").read_text(encoding="utf-8")
    found = re.search(r"<div>.*</script>", text, re.DOTALL)
    assert found
    (folder / "live.html").write_text(f"<!doctype html><meta charset=utf-8>{found[0]}")
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_page_has_the_labels_of_the_runtime(site: Path, address: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    photo = tmp_path / "photo.png"
    Image.open(BALL).convert("RGB").resize((260, 200)).save(photo)
    expected = Predictor(site / "live" / "model")(photo, NAMES).labels
    asked: list[tuple[str, str]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), headless=True, args=FLAGS
        )
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append((request.method, request.url)))
        page.goto(f"{address}/live.html")
        page.fill("#ovseg-names", "\n".join(NAMES))
        page.set_input_files("#ovseg-file", photo)
        page.wait_for_selector("#ovseg-run:not([disabled])")
        page.wait_for_function("window.ovsegResult || status().startsWith('error')".replace(
            "status()", "document.getElementById('ovseg-status').textContent"))  # fmt: skip
        said = page.inner_text("#ovseg-status")
        assert said.startswith("done in"), said
        labels = page.evaluate("Array.from(window.ovsegResult.labels)")
        assert page.inner_text("#ovseg-legend").count("%") == len(NAMES)
        # mistakes are said on the page
        page.fill("#ovseg-names", "")
        page.click("#ovseg-run")
        page.wait_for_function(
            "document.getElementById('ovseg-status').textContent.startsWith('error')"
        )
        assert page.inner_text("#ovseg-status").startswith("error: no class names")
        browser.close()
    found = np.array(labels).reshape(expected.shape)
    assert (found == expected).mean() >= 0.999
    # the image stays here: everything is read from the site, and nothing is sent
    assert {method for method, _ in asked} <= {"GET", "HEAD"}
    hosts = {urlsplit(url).netloc for _, url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(address).netloc}


def test_synonyms_and_transparency(site: Path, address: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    photo = tmp_path / "photo.png"
    image = Image.open(BALL).convert("RGBA").resize((130, 100))
    image.putalpha(Image.linear_gradient("L").resize((130, 100)))
    image.save(photo)
    names = ["teapot | soccer ball", "grass|lawn"]
    expected = Predictor(site / "live" / "model")(photo, names).labels
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), headless=True, args=FLAGS
        )
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{address}/live.html")
        page.fill("#ovseg-names", "\n".join(names))
        page.set_input_files("#ovseg-file", photo)
        page.wait_for_function("window.ovsegResult")
        labels = page.evaluate("Array.from(window.ovsegResult.labels)")
        legend = page.inner_text("#ovseg-legend")
        browser.close()
    assert {0, 1} <= set(np.unique(expected))
    assert (np.array(labels).reshape(expected.shape) == expected).mean() >= 0.99
    assert [line.split()[0] for line in legend.splitlines()] == ["teapot", "grass"]


def test_exports_that_the_page_cannot_run_are_refused(site: Path, address: str) -> None:
    from playwright.sync_api import sync_playwright

    manifest = json.loads((site / "live" / "model" / "manifest.json").read_text("utf-8"))
    changes: list[tuple[dict[str, Any], str | None]] = [
        ({}, None),
        ({"version": 2}, "version 2"),
        ({"files": {}}, "no text encoder"),
        ({"shared": {"short_side": 64, "patch": 16}}, "REGION_ENCODER shared"),
        ({"crops": {**manifest["crops"], "matting": True}}, "MATTING"),
        ({"crops": {**manifest["crops"], "mask_prompts": True}}, "mask prompts"),
        ({"classification": {**manifest["classification"], "reject": 0.3}}, "TEST.REJECT"),
        (
            {"classification": {**manifest["classification"], "best_proposals_only": True}},
            "OVSegDEMO",
        ),
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), headless=True, args=FLAGS
        )
        page = browser.new_page()
        page.goto(f"{address}/live.html")
        answers = page.evaluate(
            """async (manifests) => {
                const { refusal } = await import("/live/segmenter.js");
                return manifests.map(refusal);
            }""",
            [{**manifest, **change} for change, _ in changes],
        )
        browser.close()
    for answer, (_, expected) in zip(answers, changes, strict=True):
        assert answer is None if expected is None else expected in answer


def test_tokenizer_of_the_page(site: Path, address: str) -> None:
    from playwright.sync_api import sync_playwright

    from ovseg.data.class_lists import load_class_list
    from ovseg.runtime.tokenizer import Tokenizer

    words = [*load_class_list("ade20k_full_847").names, "O'Neill’s café №5", "x86 & 42", "a  b\tc"]
    tokenizer = Tokenizer(site / "live" / "model" / "bpe_simple_vocab_16e6.txt.gz")
    script = """async (words) => {
        const { Tokenizer } = await import("/live/tokenizer.js");
        const file = await fetch("/live/model/bpe_simple_vocab_16e6.txt.gz");
        const text = file.body.pipeThrough(new DecompressionStream("gzip"));
        const tokenizer = new Tokenizer(await new Response(text).text());
        return words.map((word) => tokenizer.encode(word));
    }"""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), headless=True, args=FLAGS
        )
        page = browser.new_page()
        page.goto(f"{address}/live.html")
        found = page.evaluate(script, words)
        browser.close()
    assert [ids[1:-1] for ids in found] == [tokenizer.encode(word) for word in words]
