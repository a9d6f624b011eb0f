"""What the documents name is there: config keys, links, headings, files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from detectron2.config import CfgNode, get_cfg
from detectron2.projects.deeplab import add_deeplab_config

from ovseg.config import add_ovseg_config

DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    ROOT / "datasets" / "README.md",
    ROOT / "open_clip_training" / "README.md",
]
# their paths are the published code's
OF_THE_PUBLISHED_CODE = {"migration.md"}
FOLDERS = "configs|datasets|docs|open_clip_training|ovseg|resources|tests|tools"


def without_code(text: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The names of a document's headings in links."""
    headings = re.findall(r"^#+ +(.+?) *$", without_code(path.read_text("utf-8")), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = without_code(document.read_text(encoding="utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        is_api = file.name == "api.md"  # its headings are made of docstrings
        if not file.exists() or (heading and not is_api and heading not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if path.name not in OF_THE_PUBLISHED_CODE],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_files_that_are_named_exist(document: Path) -> None:
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", document.read_text("utf-8"))
    assert not [path for path in named if not (ROOT / path).exists()]


def flat(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Keys and values of a config."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_config_key_is_listed_with_its_default() -> None:
    cfg = get_cfg()
    add_deeplab_config(cfg)
    theirs = dict(flat(cfg))
    add_ovseg_config(cfg)
    keys = dict(flat(cfg))
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([\w.]+)` \| `(.+?)` \|", text, flags=re.MULTILINE))
    ours = {key: repr(value) for key, value in keys.items() if key not in theirs}
    assert {key: listed.get(key) for key in ours} == ours
    assert {key: value for key, value in listed.items() if repr(keys.get(key)) != value} == {}
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`([A-Z_]+(?:\.[A-Z_]+)+)`", rows))
    assert named <= keys.keys()


def test_citation_has_the_papers_authors() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    paper = citation["preferred-citation"]
    bibtex = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    authors = [f"{who['family-names']}, {who['given-names']}" for who in paper["authors"]]
    assert f"author = {{{' and '.join(authors)}}}" in bibtex
    assert len(authors) == 9
    assert str(paper["year"]) in bibtex
