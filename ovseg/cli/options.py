"""Options that commands share, and what of a command line is looked at before anything is loaded.

PyTorch and detectron2 are imported only when they are needed: reading a command line, and telling
what is wrong with it, must not wait for them.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ovseg.config.first_look import first_look
from ovseg.config.speed import SPEEDS, speed_opts
from ovseg.engine.process_options import add_processes
from ovseg.errors import Parser

if TYPE_CHECKING:
    from detectron2.config import CfgNode


logger = logging.getLogger(__name__)


def add_config_file(parser: Parser, help: str = "config of the model (yaml)") -> None:
    """``--config-file``; the empty text without it."""
    parser.add_argument("--config-file", default="", metavar="FILE", help=help)


def add_opts(parser: Parser, option: str = "opts") -> None:
    """``--no-cache``, and overrides of config keys, last on the line; see :func:`config_opts`.

    Args:
        parser: to which they are added.
        option: ``opts`` without a word before them, ``--opts`` after this word.
    """
    parser.add_argument(
        "--no-cache", action="store_true",
        help="do not use the text features that are kept in $OVSEG_HOME, and add none",
    )  # fmt: skip
    parser.add_argument(
        option, nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE",
        help="config overrides, last on the line, for instance MODEL.WEIGHTS model.pth",
    )  # fmt: skip


def config_opts(args: argparse.Namespace) -> list[Any]:
    """The overrides that the options of :func:`add_opts` stand for."""
    return [*cache_opts(args), *args.opts]


def cache_opts(args: argparse.Namespace) -> list[str]:
    """The override that ``--no-cache`` stands for."""
    return ["MODEL.CLIP_ADAPTER.TEXT_CACHE", "False"] if args.no_cache else []


def add_proposals(parser: Parser, condition: str = "", save: bool = True) -> None:
    """``--load-proposals`` and ``--save-proposals``; ``condition`` begins their help."""
    parser.add_argument(
        "--load-proposals", default="", metavar="DIR",
        help=f"{condition}folder with a file of proposals for each image, used in place of "
        "MaskFormer's",
    )  # fmt: skip
    if save:
        parser.add_argument(
            "--save-proposals", default="", metavar="DIR",
            help=f"{condition}write MaskFormer's proposals for each image to this folder too",
        )  # fmt: skip


def add_speed(parser: Parser, condition: str = "") -> None:
    """``--speed``; ``condition`` begins its help."""
    parser.add_argument(
        "--speed", choices=tuple(SPEEDS),
        help=f"{condition}exact: as published; fast: CLIP sees about a third of the crops; "
        "fastest: about a sixth (with the embedded model). docs/speed.md says what each costs in "
        "accuracy. Default: the config's own keys",
    )  # fmt: skip


def evaluation_parser(description: str | None, output: str) -> Parser:
    """The options of a command that runs a trained model over data sets.

    Args:
        description: of the command.
        output: the folder that it writes to by default.
    """
    parser = Parser(description)
    add_config_file(parser)
    parser.add_argument("--output", default=output, metavar="DIR", help=f"default: {output}")
    add_proposals(parser, save=False)
    add_speed(parser)
    add_processes(parser, all_gpus=True)
    add_opts(parser)
    return parser


def check_command(
    args: argparse.Namespace, keys: Collection[str] = ("DATASETS.TEST",), needed: bool = True
) -> CfgNode | None:
    """Find mistakes in a command line that can be found at once.

    Args:
        args: with ``config_file`` and ``opts``, maybe ``dataset``, ``load_proposals``, ``output``
            and ``resume``.
        keys: of the data sets that the command looks at.
        needed: whether the command can do nothing without ``MODEL.WEIGHTS``.

    Returns:
        The config, if it can be read at once; see :func:`ovseg.config.first_look.first_look`.

    Raises:
        UserError: something is wrong.
    """
    given = getattr(args, "dataset", None) or []
    options: list[str] = []
    for name in ("load_proposals", "save_proposals"):
        folder = getattr(args, name, "")
        options += [f"TEST.{name.upper()}", folder] if folder else []
    cfg = first_look(
        args.config_file,
        [*options, *args.opts],
        datasets=[given] if isinstance(given, str) else given,
        keys=keys,
        weights=not getattr(args, "resume", False),  # a resumed run has weights of its own
        needed=needed,
    )
    return cfg


def evaluation_config(args: argparse.Namespace) -> CfgNode:
    """The config that a command line of :func:`evaluation_parser` asks for, all of it checked.

    Raises:
        UserError: a mistake in the config, or weights or a data set that are not there.
    """
    from ovseg.config import setup_cfg
    from ovseg.data.own.registration import register_custom
    from ovseg.engine.checks import check_evaluation, check_single_view, check_weights
    from ovseg.utils.images import allow_megapixels

    opts: list[Any] = speed_opts(args.speed)
    opts += ["TEST.LOAD_PROPOSALS", args.load_proposals] if args.load_proposals else []
    cfg = setup_cfg(args.config_file, [*opts, *config_opts(args)])
    allow_megapixels(cfg.INPUT.MAX_MEGAPIXELS)
    register_custom(cfg.DATASETS.CUSTOM)
    check_weights(cfg.MODEL.WEIGHTS)
    # their results have a place each, by name
    cfg.defrost()
    cfg.DATASETS.TEST = tuple(dict.fromkeys(cfg.DATASETS.TEST))
    cfg.freeze()
    for report in check_evaluation(cfg):
        for line in report.warnings():
            logger.warning(line)
    check_single_view(cfg)
    return cfg
