"""Segment images in a web page.

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
import functools
import importlib.util
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.lean_imports import import_libraries
from ovseg.cli.options import add_config_file, add_opts, add_speed, cache_opts, config_opts
from ovseg.config.first_look import first_look
from ovseg.config.quick import check_opts
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.released import RELEASED

if TYPE_CHECKING:
    from ovseg.predictor import Predictor
    from ovseg.runtime import Predictor as ExportedPredictor

    AnyPredictor = Predictor | ExportedPredictor

EMBEDDED = "tiny"
_MEBIBYTE = 2**20
_AUTH = "OVSEG_WEB_AUTH"


def build_parser() -> Parser:
    """The options of the page and its server."""
    usage, *details = (__doc__ or "").split("\n\n")
    parser = Parser(usage, epilog="\n\n".join(details))
    add = parser.add_argument
    add("--model", default="", metavar="NAME",
        help="the model to begin with: a name of ovseg weights list, a checkpoint, a folder, or "
        f"hf://owner/name; default: {EMBEDDED}")  # fmt: skip
    add("--runtime", default="", metavar="FOLDER",
        help="begin with a model that ovseg export wrote, on onnxruntime")  # fmt: skip
    add_config_file(parser, "config of --model; without --model give MODEL.WEIGHTS after --opts")
    add("--host", default="127.0.0.1", metavar="ADDRESS",
        help="where to listen; 0.0.0.0 opens the page to all who can reach this machine. Default: "
        "127.0.0.1, this machine alone")  # fmt: skip
    add("--port", type=int, default=7860, metavar="N", help="default: 7860; 0: any free one")
    add("--auth", metavar="USER:PASSWORD",
        help=f"name and password that visitors have to give; as ${_AUTH} in the environment other "
        "users of this machine do not see them")  # fmt: skip
    add("--max-upload", type=float, default=20, metavar="MB",
        help="the largest file of an image, in megabytes; default: 20")  # fmt: skip
    add("--max-side", type=int, default=1600, metavar="PIXELS",
        help="images with a longer side are reduced to it; default: 1600")  # fmt: skip
    add("--queue", type=int, default=20, metavar="N",
        help="requests that may wait; more are turned away. Default: 20")  # fmt: skip
    add("--keep-encoded", type=int, default=8, metavar="N",
        help="images that stay encoded in memory; default: 8")  # fmt: skip
    add_speed(parser)
    add_opts(parser, "--opts")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; serves until Ctrl+C."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with cli_errors():
        args = build_parser().parse_args(argv)
        auth = check_arguments(args)
        if importlib.util.find_spec("gradio") is None:
            raise UserError("the web page needs Gradio; run pip install 'ovseg[web]'")
        from ovseg.web.listen import address, is_loopback, listen

        listening = listen(args.host, args.port)
        if not is_loopback(args.host):
            _warn_of_visitors(args.host, with_password=auth is not None)

        if not args.runtime:
            import_libraries()
        from ovseg.web.models import Models
        from ovseg.web.server import Limits, run
        from ovseg.web.tasks import Tasks

        models = Models(loaders(args))
        models.get(models.names[0])  # so that what is wrong with it is said now
        tasks = Tasks(models, args.max_side, args.keep_encoded)
        limits = Limits(round(args.max_upload * _MEBIBYTE), args.queue)
        print(f"OVSeg is at {address(listening)} (Ctrl+C ends it)", flush=True)
        run(tasks, listening, limits, auth)


def check_arguments(args: argparse.Namespace) -> tuple[str, str] | None:
    """Find mistakes before anything is loaded; the user and password that are asked for.

    Raises:
        UserError: an option that cannot be used.
    """
    for option, value in (
        ("--max-upload", args.max_upload), ("--max-side", args.max_side), ("--queue", args.queue),
        ("--keep-encoded", args.keep_encoded),
    ):  # fmt: skip
        if not 0 < value < math.inf:
            raise UserError(f"{option} {value} must be a number above 0")
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port {args.port} must be in 0..65535")
    if args.runtime and (args.model or args.config_file or args.opts or args.speed):
        raise UserError(
            "--runtime and --model, --config-file, --speed or --opts are both given; an exported "
            "model has its settings in the folder: leave one of them out"
        )
    if args.config_file:
        first_look(args.config_file, args.opts)
    else:
        check_opts(args.opts)
    auth = os.environ.get(_AUTH) if args.auth is None else args.auth
    if auth is None:
        return None
    user, _, password = auth.partition(":")
    if not user or not password:
        raise UserError(f"--auth (or ${_AUTH}) must be USER:PASSWORD, both of them not empty")
    return user, password


def loaders(args: argparse.Namespace) -> dict[str, Callable[[], AnyPredictor]]:
    """What loads each model of the page, the one to begin with first.

    These are the model of the command line, the embedded one, and released ones whose weights are
    on this machine.
    """
    first: Callable[..., AnyPredictor] = _load_first
    if args.runtime:
        first = _load_exported
    elif args.config_file and not args.model:
        first = _load_config
    name = args.runtime or args.model or args.config_file or EMBEDDED
    label = Path(name).stem if Path(name).exists() else name
    found: dict[str, Callable[[], AnyPredictor]] = {label: functools.partial(first, args)}
    return found | {name: load for name, load in _released(args).items() if name != label}


def _released(args: argparse.Namespace) -> dict[str, Callable[[], AnyPredictor]]:
    return {
        released.name: functools.partial(_load, released.name, args)
        for released in RELEASED.values()
        if released.path.is_file()
    }


def _load_exported(args: argparse.Namespace) -> ExportedPredictor:
    from ovseg.runtime import Predictor

    return Predictor(args.runtime)


def _load(name: str, args: argparse.Namespace) -> Predictor:
    from ovseg.predictor import Predictor

    # the overrides at the end of the command are the first model's
    return Predictor.from_pretrained(name, speed=args.speed, opts=cache_opts(args))


def _load_first(args: argparse.Namespace) -> Predictor:
    from ovseg.predictor import Predictor

    return Predictor.from_pretrained(
        args.model or EMBEDDED,
        config=args.config_file or None,
        speed=args.speed,
        opts=config_opts(args),
    )


def _load_config(args: argparse.Namespace) -> Predictor:
    from ovseg.config import setup_cfg
    from ovseg.config.speed import speed_opts
    from ovseg.predictor import Predictor

    opts = [*speed_opts(args.speed), *config_opts(args)]
    return Predictor(setup_cfg(args.config_file, opts))


def _warn_of_visitors(host: str, with_password: bool) -> None:
    guard = (
        "the password goes over the network as it is typed"
        if with_password
        else "there is no password; --auth USER:PASSWORD sets one"
    )
    print(f"warning: --host {host} opens the page to other machines; {guard}", file=sys.stderr)
