"""Segment pictures in a web page.

    ovseg web
    ovseg web --model swinB-vitL14
    ovseg web --config-file configs/ovseg_swinB_vitL_demo.yaml \\
        --opts MODEL.WEIGHTS ovseg_swinbase_vitL14_ft_mpt.pth

python tools/web_demo.py is the same. It needs Gradio: pip install 'ovseg[web]'. The page offers the
model of the command line, the small model that comes with OVSeg, and the released ones whose
weights are on this machine. Only this machine can reach it unless --host says otherwise.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.errors import Parser, UserError, cli_errors
from ovseg.utils.package_files import config_path

if TYPE_CHECKING:
    from ovseg.predictor import Predictor
    from ovseg.web.models import Models

EMBEDDED = "tiny"
_MEBIBYTE = 2**20


def build_parser() -> Parser:
    """The options of the page and its server."""
    usage, *details = (__doc__ or "").split("\n\n")
    parser = Parser(usage, epilog="\n\n".join(details))
    add = parser.add_argument
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", metavar="NAME",
        help="the model to begin with: a name, a folder, hf://owner/name; default: the embedded "
        "one")  # fmt: skip
    model.add_argument("--config-file", metavar="FILE",
        help="or its config, with MODEL.WEIGHTS after --opts")  # fmt: skip
    add("--host", default="127.0.0.1", metavar="ADDRESS",
        help="the address to listen at; 0.0.0.0 opens the page to all who can reach this machine. "
        "Default: 127.0.0.1, this machine alone")  # fmt: skip
    add("--port", type=int, default=7860, metavar="N", help="default: 7860; 0 takes a free one")
    add("--auth", metavar="USER:PASSWORD", help="what visitors have to give")
    add("--max-upload", type=float, default=20, metavar="MB",
        help="the largest file of a picture; default: 20")  # fmt: skip
    add("--max-side", type=int, default=1600, metavar="PIXELS",
        help="pictures with a longer side are reduced to it; default: 1600")  # fmt: skip
    add("--queue", type=int, default=20, metavar="N",
        help="requests that may wait; more are turned away. Default: 20")  # fmt: skip
    add("--keep-encoded", type=int, default=8, metavar="N",
        help="pictures that stay encoded, for new words and settings; each takes some 30 MB with "
        "the embedded model and some 250 MB with a large one. Default: 8")  # fmt: skip
    add("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE",
        help="config overrides of the model to begin with, last on the line")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; serves until Ctrl+C."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with cli_errors():
        args = build_parser().parse_args(argv)
        auth = check_arguments(args)
        from ovseg.web.server import Limits, address, is_loopback, listen, run
        from ovseg.web.tasks import Tasks

        listening = listen(args.host, args.port)
        if not is_loopback(args.host):
            _warn_of_strangers(args.host, auth is not None)
        models = Models_of(args)
        models.get(models.names[0])  # what is wrong with it is said now
        tasks = Tasks(models, args.max_side, args.keep_encoded)
        limits = Limits(round(args.max_upload * _MEBIBYTE), args.queue)
        print(f"OVSeg is at {address(listening)} (Ctrl+C ends it)", flush=True)
        run(tasks, listening, limits, auth)
