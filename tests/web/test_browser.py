"""The page in a real Chromium: what a visitor does, one after the other and two at once.

Needs Playwright's Python package and an installed Chromium or Chrome ($OVSEG_BROWSER names
another): ``make test-browser``. Nothing is fetched for it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from web_samples import BALL, FLAGS, FLAMINGO, find_browser

from ovseg.predictor import Predictor
from ovseg.web.views import area_rows

pytestmark = pytest.mark.browser

PATIENCE = 60_000  # milliseconds; a busy machine is slow
NAMES = ["flamingo", "forest", "gravel", "water"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of ``ovseg web``, started as users start it."""
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome is installed; OVSEG_BROWSER names one")
    for package in ("gradio", "playwright"):
        pytest.importorskip(package, reason=f"no {package}: pip install 'ovseg[web-test]'")
    temporary = tmp_path_factory.mktemp("temporary")
    command = [
        sys.executable, "-m", "ovseg", "web", "--port", "0", "--max-upload", "0.5",
        "--opts", "MODEL.DEVICE", "cpu",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)}
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line
    yield found[0]
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    # what visitors gave and got is gone
    assert list(temporary.glob("ovseg-web-*")) == []


@pytest.fixture(scope="module")
def browser(server: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=find_browser(), headless=True, args=FLAGS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(server: str, browser: Any) -> Iterator[Callable[[], Visitor]]:
    """Opens the page as a new visitor; in the end, nobody has asked anything of other servers."""
    contexts, asked = [], []

    def open_page() -> Visitor:
        context = browser.new_context(viewport={"width": 1360, "height": 1000})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda websocket: asked.append(websocket.url))
        page.goto(server, timeout=PATIENCE)
        return Visitor(page)

    yield open_page
    for context in contexts:
        context.close()
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(server).netloc}


class Visitor:
    """Somebody in front of the page."""

    def __init__(self, page: Any) -> None:
        self.page = page
        page.wait_for_selector("#segment")

    def choose(self, path: Path) -> None:
        self.page.set_input_files("#image input[type=file]", path)

    def type(self, names: list[str]) -> None:
        self.page.fill("#class-names textarea", "\n".join(names))

    def segment(self) -> None:
        self.page.click("#segment")

    def message(self) -> str:
        """The message that is shown; it is closed."""
        toast = self.page.locator("[data-testid=toast-body]").first
        text = toast.inner_text()
        toast.locator("button").click()
        toast.wait_for(state="detached")
        return text

    def areas(self) -> list[list[str]]:
        """The table of areas, row by row."""
        cells = self.page.locator("#areas [data-testid^=cell-]").evaluate_all(
            "cells => cells.map(cell => [cell.dataset.testid, cell.innerText.trim()])"
        )
        rows: dict[str, list[str]] = {}
        for place, text in cells:  # cell-ROW-COLUMN
            rows.setdefault(place.split("-")[1], []).append(text)
        return list(rows.values())

    def wait_for_areas(self, expected: list[list[str]]) -> None:
        """Wait until the table is this one."""
        deadline = PATIENCE // 200
        while self.areas() != expected and deadline:
            self.page.wait_for_timeout(200)
            deadline -= 1
        assert self.areas() == expected

    def legend(self) -> list[str]:
        return self.page.locator("#result .legend-item").all_inner_texts()

    def open_tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def move(self, slider: str, key: str) -> None:
        """Move a slider by the keyboard."""
        self.page.locator(f"#{slider} input[type=range]").press(key)


def table(predictor: Predictor, image: Path, names: list[str], **settings: float) -> Any:
    return area_rows(predictor(image, names, **settings))


def test_open_type_run_and_see(visit: Callable[[], Visitor], embedded: Predictor) -> None:
    visitor = visit()
    visitor.choose(FLAMINGO)
    visitor.page.wait_for_function("document.querySelector('#status')?.innerText.includes('Type')")
    visitor.type(NAMES)
    visitor.segment()
    expected = table(embedded, FLAMINGO, NAMES)
    visitor.wait_for_areas(expected)
    found = [row[0] for row in expected if row[1] != "not found"]
    assert visitor.legend() == found
    # the image and a mask over it for each name, all of them loaded
    images = visitor.page.locator("#result .image-container img")
    sizes = images.evaluate_all("all => all.map(i => [i.complete, i.naturalWidth])")
    assert sizes == [[True, 512]] * (1 + len(found))
    # new words do not encode the image again
    assert "classes found" in visitor.page.inner_text("#status")
    visitor.type(["flamingo", "anything else"])
    visitor.segment()
    visitor.wait_for_areas(table(embedded, FLAMINGO, ["flamingo", "anything else"]))
    assert "encoded in" not in visitor.page.inner_text("#status")


def test_a_name_shows_its_region(visit: Callable[[], Visitor]) -> None:
    visitor = visit()
    visitor.page.locator("#examples button").first.click()
    items = visitor.page.locator("#result .legend-item")
    items.first.wait_for()
    items.nth(1).hover()
    visitor.page.wait_for_selector("#result .mask.active")
    classes = visitor.page.locator("#result .mask").evaluate_all(
        "all => all.map(mask => [mask.matches('.active'), mask.matches('.inactive')])"
    )
    expected = [[place == 1, place != 1] for place in range(len(classes))]
    assert len(classes) > 1
    assert classes == expected


def test_sliders(visit: Callable[[], Visitor], embedded: Predictor) -> None:
    visitor = visit()
    visitor.move("weight", "ArrowLeft")  # before there is an image, nothing happens
    visitor.move("weight", "ArrowRight")
    visitor.type(NAMES)
    visitor.choose(FLAMINGO)
    visitor.wait_for_areas(table(embedded, FLAMINGO, NAMES))
    for slider, key, settings in (
        ("weight", "End", {"ensemble_weight": 1.0}),
        ("weight", "Home", {"ensemble_weight": 0.0}),
        ("threshold", "ArrowRight", {"ensemble_weight": 0.0, "mask_threshold": 0.55}),
        (
            "reject",
            "ArrowRight",
            {"ensemble_weight": 0.0, "mask_threshold": 0.55, "reject": 0.01},
        ),
    ):
        visitor.move(slider, key)
        visitor.wait_for_areas(table(embedded, FLAMINGO, NAMES, **settings))
        assert "encoded in" not in visitor.page.inner_text("#status")
    before = visitor.page.locator("#result .mask").first.get_attribute("src")
    visitor.move("opacity", "End")
    visitor.page.wait_for_function(
        "before => document.querySelector('#result .mask').src != before", arg=before
    )


def test_wrong_files_and_words_are_told(
    visit: Callable[[], Visitor], embedded: Predictor, tmp_path: Path
) -> None:
    visitor = visit()
    visitor.segment()
    assert "no image; choose one" in visitor.message()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    visitor.choose(broken)
    message = visitor.message()
    assert "input 'broken.png' cannot be read as an image" in message
    assert "ovseg-web" not in message
    large = tmp_path / "large.png"
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large)
    assert large.stat().st_size > 0.5 * 2**20
    visitor.page.reload()
    visitor = Visitor(visitor.page)
    visitor.choose(large)
    assert "exceed" in visitor.message()
    # after all of this the page still works
    visitor.choose(BALL)
    visitor.segment()
    assert "no class names" in visitor.message()
    visitor.type(["grass", "Grass"])
    visitor.segment()
    assert "'Grass' is given twice" in visitor.message()
    visitor.type(["soccer ball", "grass"])
    visitor.segment()
    visitor.wait_for_areas(table(embedded, BALL, ["soccer ball", "grass"]))


def test_names_are_text(visit: Callable[[], Visitor]) -> None:
    name = "<img src=x onerror=window.hurt=1>"
    visitor = visit()
    visitor.choose(BALL)
    visitor.type([name, name.upper()])
    visitor.segment()
    assert name.upper() in visitor.message()
    visitor.type([name])
    visitor.segment()
    visitor.page.locator("#result .legend-item").first.wait_for()
    assert visitor.legend() == [name]
    visitor.open_tab("Proposals")
    visitor.page.locator("#proposals button img").first.click()
    visitor.page.get_by_text(name).first.wait_for()
    assert visitor.page.evaluate("window.hurt") is None


def test_proposals(visit: Callable[[], Visitor], embedded: Predictor) -> None:
    visitor = visit()
    visitor.type(NAMES)
    visitor.choose(FLAMINGO)
    visitor.wait_for_areas(table(embedded, FLAMINGO, NAMES))
    visitor.open_tab("Proposals")
    cards = visitor.page.locator("#proposals button:has(img)")
    cards.first.wait_for()
    proposals = embedded(FLAMINGO, NAMES, proposals=True).proposals
    assert proposals is not None
    areas = (proposals.masks > 0.5).mean(axis=(1, 2))
    assert cards.count() == (areas > 0).sum()
    cards.first.click()
    best = NAMES[int(proposals.clip_probs[areas.argmax()].argmax())]
    cell = visitor.page.locator("#branches [data-testid=cell-0-3]")
    cell.get_by_text(best).wait_for()
    # another segmentation fills the tab anew
    visitor.type(["anything", "else"])
    visitor.segment()
    visitor.page.wait_for_function(
        "document.querySelector('#status').innerText.includes(' of 2 classes')"
    )
    cards.nth(1).click()
    visitor.page.locator("#branches [data-testid^=cell-]").get_by_text("anything").first.wait_for()


def test_downloads(visit: Callable[[], Visitor], embedded: Predictor, tmp_path: Path) -> None:
    visitor = visit()
    visitor.type(NAMES)
    visitor.choose(FLAMINGO)
    expected = embedded(FLAMINGO, NAMES)
    visitor.wait_for_areas(area_rows(expected))
    visitor.open_tab("Downloads")
    links = visitor.page.locator("#files a[download]")
    links.first.wait_for()
    files = {}
    for link in links.all():
        with visitor.page.expect_download() as download:
            link.click()
        name = download.value.suggested_filename
        files[name] = tmp_path / name
        download.value.save_as(files[name])
    assert sorted(files) == [
        "flamingo.json", "flamingo_coco.json", "flamingo_labels.png", "flamingo_overlay.png"
    ]  # fmt: skip
    labels = np.asarray(Image.open(files["flamingo_labels.png"]))
    np.testing.assert_array_equal(labels, expected.labels)
    summary = json.loads(files["flamingo.json"].read_text("utf-8"))
    assert [entry["pixels"] for entry in summary["classes"]] == expected.areas()
    coco = json.loads(files["flamingo_coco.json"].read_text("utf-8"))
    assert [category["name"] for category in coco["categories"]] == NAMES


def test_class_names_of_a_data_set(visit: Callable[[], Visitor]) -> None:
    visitor = visit()
    visitor.page.locator("#built-in input").click()
    visitor.page.get_by_role("option", name="pascal-voc-20").click()
    visitor.page.wait_for_function(
        "document.querySelector('#class-names textarea').value.split('\\n').length == 20"
    )


def test_two_visitors_at_once(visit: Callable[[], Visitor], embedded: Predictor) -> None:
    asked = [(FLAMINGO, NAMES), (BALL, ["soccer ball", "teapot", "grass"])]
    visitors = [visit() for _ in asked]
    for visitor, (image, names) in zip(visitors, asked, strict=True):
        visitor.type(names)
        visitor.choose(image)
    for visitor, (image, names) in zip(visitors, asked, strict=True):
        visitor.wait_for_areas(table(embedded, image, names))
    # both move a slider before either is answered, and each gets an answer of their own
    for visitor, key in zip(visitors, ("Home", "End"), strict=True):
        visitor.move("weight", key)
    for visitor, (image, names), weight in zip(visitors, asked, (0.0, 1.0), strict=True):
        visitor.wait_for_areas(table(embedded, image, names, ensemble_weight=weight))
