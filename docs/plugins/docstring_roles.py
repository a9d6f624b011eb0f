"""Lets docstrings that are written in reStructuredText's manner be shown as Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|exc|data):`~?([^`]+)`")
_LITERAL_BLOCK = re.compile(r"::[ \t]*$", flags=re.MULTILINE)


class DocstringRoles(griffe.Extension):
    """``:class:`UserError``` becomes code, and ``::`` at the end of a line a colon."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            text = _ROLE.sub(lambda match: f"`{match[1].rsplit('.', 1)[-1]}`", obj.docstring.value)
            obj.docstring.value = _LITERAL_BLOCK.sub(":", text)
