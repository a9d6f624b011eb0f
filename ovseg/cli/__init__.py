"""The ``ovseg`` command: a table of subcommands, each a module that is imported when it is chosen.

A module has ``build_parser`` and ``main``. Those that need PyTorch or detectron2 import them once
the command line is known to be right.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ovseg import __version__
from ovseg.errors import Parser, UserError, cli_errors

#: what each subcommand does
COMMANDS = {
    "segment": "segment images by any class names",
    "video": "segment a video or what a camera sees",
    "label": "label large collections, on one machine or many",
    "web": "segment images in a web page",
    "train": "train the segmentation model",
    "evaluate": "evaluate a checkpoint on data sets",
    "search": "find the best ensemble weight and mask threshold in one pass",
    "templates": "find the best templates of each class",
    "analyze": "find out whether masks or classes cost a model its score",
    "compare": "train other methods beside OVSeg and compare them",
    "export": "write a model for programs without PyTorch",
    "weights": "list, fetch, convert, swap and export weights",
    "info": "say what is installed, and what this machine can do",
    "install-detectron2": "install detectron2 without a compiler",
}


def build_parser() -> Parser:
    """What ``ovseg`` alone understands."""
    parser = Parser(
        "OVSeg: open-vocabulary semantic segmentation with mask-adapted CLIP.",
        prog="ovseg",
        usage="ovseg COMMAND [OPTION ...]",
        epilog="commands:\n"
        + "\n".join(f"  {name:20}{what}" for name, what in COMMANDS.items())
        + "\n\novseg COMMAND --help explains one of them.",
    )
    parser.add_argument("--version", action="version", version=f"ovseg {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand; without one, say which there are."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with cli_errors():
        if not arguments or arguments[0].startswith("-"):
            parser = build_parser()
            parser.parse_args(arguments)
            parser.print_help()
            return
        command = arguments.pop(0)
        if command not in COMMANDS:
            raise _unknown(command)
        if command != "segment":
            require_pytorch(f"ovseg {command}")
    module = importlib.import_module(f"ovseg.cli.{command.replace('-', '_')}")
    with _called(f"ovseg {command}"):
        module.main(arguments)


def require_pytorch(what: str) -> None:
    """Check that PyTorch is there, which the distribution ``ovseg-runtime`` does without.

    Raises:
        UserError: it is not; ``what`` needs it.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            f"{what} needs PyTorch, and this is ovseg-runtime, which segments with --runtime "
            "alone; install ovseg in an environment of its own"
        )


def _unknown(command: str) -> UserError:
    close = difflib.get_close_matches(command, COMMANDS, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(COMMANDS)}"
    return UserError(f"ovseg has no command {command!r}; {hint}")


@contextmanager
def _called(program: str) -> Iterator[None]:
    """Let argparse, which takes the name of the program from there, call it so."""
    before = sys.argv[0]
    sys.argv[0] = program
    try:
        yield
    finally:
        sys.argv[0] = before
