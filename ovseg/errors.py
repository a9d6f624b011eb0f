"""Errors that are the user's to mend, and how scripts report them.

A :class:`UserError` carries one line that names the argument, its value and the way out. Library
code raises it; commands wrap their body in :func:`cli_errors`, which prints that line without a
traceback and ends the process with exit code 2. With ``--debug``, which every command has, the
traceback is shown before the line. A file that cannot be read or written, a full disk and a missing
detectron2 are such errors too. :class:`Parser` reads all command lines.
"""

from __future__ import annotations

import argparse
import errno
import logging
import numbers
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

# what the system says when there is no room: none left, none for this user, none for this file
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: said where detectron2 is missing, by commands and by ``import ovseg``'s names
NO_DETECTRON2 = "OVSeg needs detectron2: run ovseg install-detectron2"


class UserError(Exception):
    """Something the user gave cannot be used; the message says what and how to mend it."""


class Parser(argparse.ArgumentParser):
    """Keeps the lines of its description; wrong usage is a :class:`UserError`."""

    def __init__(self, description: str | None = None, **options: Any) -> None:
        """The command's description; ``options`` are argparse's own."""
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, **options)
        self.add_argument(
            "--debug", action=_ShowTraceback, help="show where in the program an error comes from"
        )

    def error(self, message: str) -> NoReturn:
        """Says what is wrong."""
        raise UserError(f"{message}; see --help")


class _ShowTraceback(argparse.Action):
    """``--debug``: counts for the command that is read, and adds nothing to its options."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, *_: object, **__: object) -> None:
        _shown.set(True)


#: whether ``--debug`` was given to the command that runs
_shown: ContextVar[bool] = ContextVar("_shown", default=False)


@contextmanager
def cli_errors(debug: bool = False) -> Iterator[None]:
    """Turn a :class:`UserError` into ``error: <message>`` on stderr and exit code 2.

    An ``OSError`` that names a file, or tells of a full disk, is one too, and so is a missing
    detectron2.

    Args:
        debug: as with ``--debug``, for a process that was not given a command line.
    """
    before = _shown.set(debug)
    try:
        with without_notices(), _quiet_threads():
            yield
            sys.stdout.flush()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            raise SystemExit(128 + signal.SIGPIPE) from None
        line = user_line(error)
        if line is None:
            raise
        if is_full_disk(error):
            _close_logs()
        say_error(line)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        say_interrupted()
        raise SystemExit(130) from None
    finally:
        _shown.reset(before)


def _reader_has_gone() -> bool:
    """Whether nobody reads stdout any more, as after ``| head``; nothing is written there then."""
    try:
        print(flush=True)  # where what failed is not in a buffer any more
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error tells that there is no room for a file."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def user_line(error: BaseException) -> str | None:
    """What a user is told of an error, see :func:`cli_errors`; None of the program's own errors."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        full = is_full_disk(error)
        if error.filename is None and not full:
            return None
        name = error.filename
        name = os.fsdecode(name) if isinstance(name, bytes) else name
        place = f"{str(name)!r}: " if name is not None else ""
        return f"{place}{error.strerror}{'; make room there, or write elsewhere' if full else ''}"
    if isinstance(error, ModuleNotFoundError) and lacks_detectron2(error):
        return NO_DETECTRON2
    return None


def line_of_one_image(error: BaseException) -> str | None:
    """What is said of an image that failed; None of a fault that every image has."""
    if isinstance(error, UserError):
        return None if is_full_disk(error.__cause__) else str(error)
    # PyTorch's error by its name: exported models run without PyTorch
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return " ".join(str(error).split()) or "out of memory"
    return None


def is_debugging() -> bool:
    """Whether ``--debug`` was given to the command that runs."""
    return _shown.get()


@contextmanager
def without_notices() -> Iterator[None]:
    """Do not show what libraries say to each other when they are imported."""
    with warnings.catch_warnings():
        # fvcore scripts two losses, which PyTorch announces to end one day
        warnings.filterwarnings(
            "ignore", message="`torch.jit.script` is deprecated", category=FutureWarning
        )
        # detectron2 sends objects to other processes by it
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
        yield


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Leave it to the main thread, which writes too, to say that files cannot be written.

    TensorBoard writes from a thread of its own, whose traceback would be printed.
    """
    usual = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and user_line(args.exc_value)):
            usual(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual


def _close_logs() -> None:
    """Close the log's files, which have lines left that cannot be written; Python would say so."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in list(getattr(logger, "handlers", ())):
            stream: Any = getattr(handler, "stream", None)
            if Path(str(getattr(stream, "name", ""))).is_file():
                with suppress(OSError, ValueError):
                    stream.close()


def check_share(name: str, value: float | None) -> None:
    """Check that a number is in 0..1.

    Raises:
        UserError: it is not.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise UserError(f"{name} {value!r} is no number; give one in 0..1")
    if not 0 <= value <= 1:
        raise UserError(f"{name} {value} must be in 0..1")


def lacks_detectron2(error: ModuleNotFoundError) -> bool:
    """Whether an import failed because detectron2, or a part of it, is not there."""
    return (error.name or "").split(".")[0] == "detectron2"


def say_error(message: str) -> None:
    """Say on stderr, in one line, what is wrong; with ``--debug`` after the traceback."""
    if _shown.get() and sys.exc_info()[0] is not None:
        traceback.print_exc()
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)


def say_interrupted() -> None:
    """Say on stderr that Ctrl-C has ended the command."""
    print("interrupted", file=sys.stderr, flush=True)
