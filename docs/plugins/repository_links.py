"""Makes the site of documents that are read in the repository too.

Documents outside of ``docs/`` become pages, and links between documents, which are written for the
repository, are turned to where their target lies on the site. A link to a file that the site does
not have (code, a config) becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# page of the site: document of the repository
PAGES = {
    "commands.md": "GETTING_STARTED.md",
    "datasets.md": "datasets/README.md",
    "clip-training.md": "open_clip_training/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
# document of the repository: the page that has its content
SITES = {document: page for page, document in PAGES.items()} | {"README.md": "index.md"}

_BLOCK = re.compile(r"(^```.*?^```)", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^)\s#]*)((?:#[^)\s]*)?)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that lie outside of ``docs/``."""
    root = Path(config.config_file_path).parent
    for page, document in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(root / document)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn the links of a page, outside of its blocks of code."""
    source = PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def turned(match: re.Match[str]) -> str:
        mark, text, path, anchor = match.groups()
        if not path or "://" in path:
            return match[0]
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        place = SITES.get(wanted, wanted.removeprefix("docs/"))
        on_site = wanted in SITES or wanted.startswith("docs/")
        # all pages lie in one folder
        return f"{mark}[{text}]({place}{anchor})" if on_site else text

    parts = _BLOCK.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(turned, part) for part in parts)
