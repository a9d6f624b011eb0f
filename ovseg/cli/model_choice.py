"""Which model and which words: what commands that segment have in common."""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.lean_imports import import_libraries
from ovseg.cli.options import add_speed, config_opts
from ovseg.colours import PALETTES
from ovseg.config.first_look import check_proposals_folder, first_look
from ovseg.config.quick import check_opts, quick_cfg
from ovseg.config.speed import speed_opts
from ovseg.data.vocabulary import BUILT_IN_NAMES, read_vocabulary, thing_names
from ovseg.errors import Parser, UserError
from ovseg.pretrained import is_fetched, resolve
from ovseg.utils.package_files import config_path

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ovseg.vocabulary import Vocabulary

#: config keys of segments besides labels
SEGMENTS = ("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "MODEL.MASK_FORMER.TEST.INSTANCE_ON")
#: the demo of the small model whose weights come with OVSeg
EMBEDDED_CONFIG = config_path("ovseg_tiny_demo.yaml")


def add_model(
    parser: Parser,
    words: str = "the class names to look for. Without any the embedded model looks for all that "
    "it knows",
    speed: bool = True,
) -> None:
    """``--model``, ``--config-file``, ``--class-names``, ``--vocabulary`` and ``--speed``.

    ``words`` says what the words are for; without ``speed`` there is no ``--speed``.
    """
    add = parser.add_argument
    add("--model", metavar="NAME",
        help="tiny (the default, which comes with OVSeg), swinB-vitL14, R101c-vitB16, "
        "hf://owner/name, the folder of a saved model, or a checkpoint with config.yaml beside it; "
        "see: ovseg weights list")  # fmt: skip
    add("--config-file", metavar="FILE", type=_not_empty,
        help="config of the model; give its MODEL.WEIGHTS after --opts")  # fmt: skip
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--class-names", nargs="*", action="extend", metavar="CLASS",
        help=f"{words}. Quote a name that has blanks; commas belong to the name; 'sofa|couch' is "
        "one class with two names")  # fmt: skip
    group.add_argument("--vocabulary", metavar="FILE|NAME",
        help="the class names in a file: a text file with a class a line, or a JSON file with a "
        "list or with the synonyms of each class; or the name of a built-in list: "
        f"{', '.join(BUILT_IN_NAMES)}")  # fmt: skip
    if speed:
        add_speed(parser)
    else:
        parser.set_defaults(speed=None)


def _not_empty(value: str) -> str:
    if not value:  # of a shell's variable that is not set
        raise argparse.ArgumentTypeError("is empty; give a file, or leave the option out")
    return value


def add_palette(parser: Parser) -> None:
    """``--palette``."""
    parser.add_argument(
        "--palette", default=PALETTES[0], choices=PALETTES,
        help="colours of the classes; colorblind: they can be told apart with any colour vision",
    )  # fmt: skip


def add_reject(parser: Parser) -> None:
    """``--reject``."""
    parser.add_argument(
        "--reject", type=float, metavar="STRENGTH",
        help="leave pixels that belong to none of the class names without a class; a number in "
        "0..1, more pixels with a larger one. Default: 0, none; 0.1 is a good start",
    )  # fmt: skip


def check_reject(args: argparse.Namespace) -> None:
    """Refuse a ``--reject`` out of range.

    Raises:
        UserError: says the range.
    """
    if args.reject is not None and not 0 <= args.reject <= 1:
        raise UserError(f"--reject {args.reject} must lie in 0..1; 0 rejects nothing")


def check_model(args: argparse.Namespace) -> None:
    """Look at the model of a command line as far as it can be at once.

    Raises:
        UserError: two models, or no such config file.
    """
    if is_embedded(args):
        args.config_file = EMBEDDED_CONFIG
    if args.config_file:
        # the rest of the config is looked at when the other options have been
        first_look(args.config_file, args.opts, weights="MODEL.WEIGHTS" in args.opts)
        check_proposals_folder(getattr(args, "load_proposals", ""))
    else:
        check_opts(args.opts)
        if not is_fetched(args.model):
            resolve(args.model)


def is_embedded(args: argparse.Namespace) -> bool:
    """Whether a command line asks for the embedded model.

    Raises:
        UserError: it asks for two models.
    """
    if args.model and args.config_file:
        raise UserError("--model and --config-file are both given; give one of them")
    return args.config_file is None and args.model in {None, "tiny"}


def given_words(args: argparse.Namespace, default: str | None = None) -> Vocabulary | None:
    """The words of a command line, or ``default``, a vocabulary's name, where it gives none.

    Raises:
        UserError: words that cannot be used.
    """
    given = args.class_names if args.vocabulary is None else args.vocabulary
    given = default if given is None else given
    return None if given is None else read_vocabulary(given)


def chosen_words(args: argparse.Namespace) -> Vocabulary:
    """The words of a command line, and its model looked at as far as it can be at once.

    Raises:
        UserError: two models, no such config file, or words that cannot be used.
    """
    default = "stickerscenes" if is_embedded(args) else None
    if len(args.class_names or ()) == 1 and "," in args.class_names[0]:
        logger.warning(
            "class name %r is one class: commas belong to a name, blanks separate classes",
            args.class_names[0],
        )
    words = given_words(args, default) or read_vocabulary([])
    check_model(args)
    return words


def chosen_things(args: argparse.Namespace, vocabulary: Vocabulary) -> Sequence[str] | None:
    """The classes that are things: ``--thing-classes``, or what the embedded model's list says.

    Raises:
        UserError: one of them is no class.
    """
    things: Sequence[str] | None = args.thing_classes
    if things is None and args.class_names is None:
        things = thing_names(args.vocabulary or "stickerscenes")
    for name in things or ():
        if name not in vocabulary.names:
            names = ", ".join(vocabulary.names[:5]) + (", ..." if len(vocabulary) > 5 else "")
            raise UserError(
                f"--thing-classes {name!r} is none of the class names (synonyms do not count): "
                f"{names}"
            )
    return things


def config_at_once(args: argparse.Namespace) -> CfgNode | None:
    """The config of a command line, after :func:`chosen_words`, where nothing heavy has to be
    imported to read it."""
    return quick_cfg(args.config_file, config_opts(args)) if args.config_file else None


def check_labels_alone(cfg: CfgNode | None, command: str) -> None:
    """Refuse a config that asks for segments or for files of proposals, where a command has no
    place for them; None: not read yet.

    Raises:
        UserError: says which.
    """
    if cfg is None:
        return
    for key in (*SEGMENTS, "TEST.LOAD_PROPOSALS", "TEST.SAVE_PROPOSALS"):
        if value := functools.reduce(getattr, key.split("."), cfg):
            raise UserError(
                f"{key} {value} has no effect in {command}, which writes label maps alone; leave "
                "it out, or use ovseg segment"
            )


def chosen_config(args: argparse.Namespace, opts: Sequence[str] = ()) -> CfgNode:
    """The config of a command line's model, after :func:`chosen_words`.

    Args:
        args: with ``opts``, which take precedence.
        opts: overrides that other options stand for.

    Raises:
        UserError: an unknown model, or a mistake in the config.
    """
    weights: list[str] = []
    if not args.config_file:
        pretrained = resolve(args.model)
        args.config_file, weights = pretrained.config, pretrained.opts
    opts = [*weights, *speed_opts(args.speed), *opts, *config_opts(args)]
    first_look(args.config_file, opts)
    import_libraries()
    from ovseg.config import setup_cfg

    return setup_cfg(args.config_file, opts)


def about_model(cfg: CfgNode, config_file: str | Path) -> dict[str, object]:
    """What the JSON of a result says of the model."""
    return {
        "config": Path(config_file).name,
        "weights": cfg.MODEL.WEIGHTS,
        "architecture": cfg.MODEL.META_ARCHITECTURE,
        "clip": cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME,
        "ensemble": cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE,
        "ensemble_weight": cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT,
        "reject": cfg.TEST.REJECT,
        "device": cfg.MODEL.DEVICE,
    }
