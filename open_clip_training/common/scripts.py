"""How the scripts of this folder start."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ovseg.errors import cli_errors


def run_script(main: Callable[[], object]) -> None:
    """Call ``main`` with a log on stderr; what is the user's to mend ends with exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with cli_errors():
        main()
