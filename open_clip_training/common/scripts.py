"""How the scripts of this folder start."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TextIO

from ovseg.engine.place import find_place
from ovseg.engine.process_options import several_processes
from ovseg.errors import UserError, cli_errors


def run_script(main: Callable[[], object]) -> None:
    """Call ``main`` with a log on stderr; what is the user's to mend ends with exit code 2."""
    log_to_stderr()
    with cli_errors(), several_processes():
        main()


def log_to_stderr(level: int = logging.INFO) -> None:
    """Log from ``level`` on; a process that was started by another has no log yet."""
    logging.basicConfig(format="%(asctime)s %(message)s", handlers=[_ToStderr()])
    logging.getLogger().setLevel(level)


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to what is stderr at that time: a run of several in a process may have its own."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def refuse_several_processes() -> None:
    """For scripts that work in one process.

    Raises:
        UserError: torchrun or srun has started several.
    """
    place = find_place()
    if place is not None:
        raise UserError(
            f"{place.started_by} has started {place.world} processes, and this script works in "
            f"one; start it without {place.started_by}"
        )
