"""Errors that are the user's to mend, and how scripts report them.

A :class:`UserError` carries one line that names the argument, its value and the way out. Library
code raises it; scripts wrap their body in :func:`cli_errors`, which prints that line without a
traceback and ends the process with exit code 2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something the user gave cannot be used; the message says what and how to mend it."""


@contextmanager
def cli_errors() -> Iterator[None]:
    """Turn a :class:`UserError` into ``error: <message>`` on stderr and exit code 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
