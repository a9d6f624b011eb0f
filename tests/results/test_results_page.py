"""The page in a browser that opens it from a folder: what is shown, and what hovering says."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ovseg.prediction import Prediction
from ovseg.results.files import finish_results, plan_outputs, save_result
from ovseg.results.html import page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
NAMES = ["grass", "</script><b>bold</b>", *(f"word {i}" for i in range(300))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images; the first is grass on its left, class 299 on its right, none at the bottom."""
    plan = plan_outputs([Path("a b.jpg"), Path("c#1.jpg")], str(tmp_path))
    labels = np.zeros((60, 80), np.int32)
    labels[:, 40:] = 299
    labels[50:] = -1
    scores = np.where(labels < 0, 0, 0.5).astype(np.float32)
    scores[:, 60:] *= 4  # scores may exceed 1
    one = Prediction(labels, scores, NAMES, np.full((60, 80, 3), 90, np.uint8))
    ones = np.ones((60, 10), np.int32)
    other = Prediction(ones, scores[:, :10], NAMES, np.full((60, 10, 3), 200, np.uint8))
    for prediction, paths, file in zip((one, other), plan, ("x/a b.jpg", "x/c#1.jpg"), strict=True):
        save_result(prediction, paths, {"file": file}, ("html",))
    finish_results(plan, ("html",))
    # a folder of its own, moved elsewhere
    return Path(shutil.move(tmp_path / "html", tmp_path / "sent"))


def test_the_folder_names_nothing_outside(folder: Path) -> None:
    names = {"index.html", "a b.js", "a b.jpg", "c#1.js", "c#1.jpg"}
    assert {file.name for file in folder.iterdir()} == names
    text = (folder / "index.html").read_text("utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["']|https?:|@import|url\(""", text)


def test_names_cannot_end_the_script() -> None:
    listed = page(["</script><script>alert(1)</script>"])
    assert listed.count("</script>") == 1


def rendered(folder: Path, tmp_path: Path, script: str) -> str:
    """The page's content after a script, as a browser has it."""
    probe = folder / "probe.html"
    text = (folder / "index.html").read_text("utf-8")
    probe.write_text(text.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    assert BROWSER
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900",
            "--virtual-time-budget=60000", "--dump-dom", probe.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page in")
def test_hovering_in_a_browser(folder: Path, tmp_path: Path) -> None:
    # hover at places given in shares of the image, and write down what the page says
    script = """
    const said = [];
    const at = (x, y) => {
      const figure = document.querySelector('figure');
      const box = figure.getBoundingClientRect();
      figure.dispatchEvent(new MouseEvent('mousemove', {
        clientX: box.left + x * box.width, clientY: box.top + y * box.height}));
      said.push(document.getElementById('tip').textContent);
    };
    const waiting = setInterval(() => {
      if (document.querySelectorAll('[data-ready]').length < 2) return;
      clearInterval(waiting);
      at(0.25, 0.4); at(0.6, 0.4); at(0.9, 0.4); at(0.5, 0.95);
      const result = document.createElement('pre');
      result.id = 'said';
      result.textContent = JSON.stringify({
        said, size: [0, 1].map(i => {
          const box = document.querySelectorAll('figure img')[i].getBoundingClientRect();
          return box.width / box.height; }),
        ready: document.querySelectorAll('[data-ready]').length,
        rows: [...document.querySelectorAll('tbody')].map(
          body => [...body.rows].map(row => [...row.cells].map(cell => cell.textContent)))});
      document.body.append(result);
    }, 100);
    """
    # a browser without a screen now and then draws no frame, and so never sees an image in view
    for _ in range(4):
        content = rendered(folder, tmp_path, script)
        found = re.search(r'<pre id="said">(.*?)</pre>', content, flags=re.DOTALL)
        if found:
            break
    assert found
    result = json.loads(html.unescape(found[1]))
    assert result["said"] == [
        "grass · score 0.50", "word 297 · score 0.50", "word 297 · score 2.00", "no class",
    ]  # fmt: skip
    assert result["ready"] == 2
    assert result["size"] == pytest.approx([80 / 60, 10 / 60], rel=0.02)
    first, second = result["rows"]
    assert first == [
        ["grass", "41.7 %", "2000", "0.50"],
        ["word 297", "41.7 %", "2000", "1.25"],
        ["no class", "16.7 %", "800", ""],
    ]
    assert second[0][:2] == ["</script><b>bold</b>", "100.0 %"]
