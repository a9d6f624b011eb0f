"""List, fetch, convert, swap and export weights.

    ovseg weights list
    ovseg weights fetch swinB-vitL14
    ovseg weights convert swin_base_22k.pth swin_base_22k.pkl
    ovseg weights swap put OVSEG.pth ADAPTED_CLIP.pt NEW_OVSEG.pth --verify
    ovseg weights swap take OVSEG.pth CLIP.pt --name ViT-L/14 --verify
    ovseg weights export output/ovseg_tiny/model_final.pth ovseg_tiny.pth

Fetched weights are kept in $OVSEG_HOME/weights, by default ~/.cache/ovseg/weights. ovseg weights
COMMAND --help explains one of them.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from ovseg.errors import Parser, UserError, cli_errors
from ovseg.released import RELEASED, Released, fetch, is_there, local_weights

SWAP = """Put adapted CLIP weights into an OVSeg checkpoint, or take them out of one.

    ovseg weights swap put OVSEG.pth ADAPTED_CLIP.pt NEW_OVSEG.pth --verify
    ovseg weights swap take OVSEG.pth CLIP.pt --name ViT-L/14 --verify

Both say whether mask prompts are in the result and which config keys go with it. All other
contents of the checkpoint stay as they are; of each weight the checkpoint's precision is kept.
"""
EXPORT = """Keep the weights of a training checkpoint, in half precision, to share them.

    ovseg weights export output/ovseg_tiny/model_final.pth ovseg_tiny.pth
    ovseg weights export output/ovseg_tiny/model_final.pth --safetensors my_model

The first has the released format, {"model": state_dict}; it loads as MODEL.WEIGHTS, where the
weights become float32 again. The second is a folder with config.yaml and model.safetensors, which
is a model's name by itself, and what a repository hf://owner/name on the Hugging Face Hub holds.
"""
CONVERT = """Convert a backbone's checkpoint to a file that detectron2 reads.

    ovseg weights convert swin_base_22k.pth swin_base_22k.pkl
    ovseg weights convert resnet101.pth R-101.pkl

An official Swin Transformer, or a ResNet in torchvision's naming. Give the .pkl as MODEL.WEIGHTS to
start a training from it.
"""


_OVSEG = "OVSeg checkpoint: a file, or ovseg://NAME, see: ovseg weights list"


def build_parser() -> Parser:
    """All subcommands; each sets ``action``."""
    parser = Parser(__doc__)
    commands = parser.add_subparsers(
        required=True, dest="command", metavar="{list,fetch,convert,swap,export}"
    )
    each: dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None]]] = {
        "list": ("list weights by name, and which are on this machine", "", _list_arguments),
        "fetch": ("download weights, and print where they are", "", _fetch_arguments),
        "convert": ("convert a backbone's checkpoint for detectron2", CONVERT, convert_arguments),
        "swap": ("put CLIP into an OVSeg checkpoint, or take it out of one", SWAP, swap_arguments),
        "export": ("make a small file of a training checkpoint", EXPORT, export_arguments),
    }
    for name, (about, description, add_arguments) in each.items():
        add_arguments(commands.add_parser(name, help=about, description=description or about))
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    run(build_parser(), argv)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> None:
    """Read the command line and do what it asks for."""
    with cli_errors():
        args = parser.parse_args(argv)
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        args.action(args)


def _file(checkpoint: str) -> Path:
    """A checkpoint by its path, or by a name as MODEL.WEIGHTS takes it, which may be fetched.

    Raises:
        UserError: it is not there, which is told before PyTorch is imported to read it.
    """
    path = Path(local_weights(checkpoint))
    if not path.exists():
        raise UserError(f"checkpoint {checkpoint!r} does not exist (no such file); check the path")
    return path


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action=_list)


def _list(args: argparse.Namespace) -> None:
    from tabulate import tabulate

    rows = [_row(released) for released in RELEASED.values()]
    print(tabulate(rows, headers=["name", "model", "size", "from", "here"]))


def _row(released: Released) -> list[str]:
    source = released.drive.link if released.drive else "this package"
    try:
        here = str(released.path) if is_there(released) else "no"
    except UserError as error:
        here = str(error)
    size = ""
    if released.path.is_file():
        size = f"{released.path.stat().st_size / 2**20:.1f} MiB"
    return [released.name, released.about, size, source, here]


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help=f"{', '.join(RELEASED)} or hf://owner/name"
    )
    parser.set_defaults(action=_fetch)


def _fetch(args: argparse.Namespace) -> None:
    for name in args.names:
        print(fetch(name))


def convert_arguments(parser: argparse.ArgumentParser, kind: str = "") -> None:
    """Of the conversion of a backbone.

    Args:
        parser: gets them.
        kind: the only one that is taken; empty: any, told by ``--kind`` or by the weights' names.
    """
    parser.add_argument("input", help="checkpoint (.pth)")
    parser.add_argument("output", help="file to write (.pkl)")
    if not kind:
        parser.add_argument(
            "--kind", choices=["swin", "torchvision"], default="",
            help="what the input is; default: told by the names of its weights",
        )  # fmt: skip
        parser.set_defaults(action=_convert)
    else:
        parser.set_defaults(action=_convert, kind=kind)


def _convert(args: argparse.Namespace) -> None:
    source = _file(args.input)
    _check_target(Path(args.output), source)
    from ovseg.engine.backbone_conversion import convert_file

    convert_file(source, args.output, args.kind)


def swap_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``put`` and ``take``."""
    commands = parser.add_subparsers(required=True, dest="direction", metavar="{put,take}")
    put = commands.add_parser("put", help="put CLIP into an OVSeg checkpoint")
    put.add_argument("ovseg", help=_OVSEG)
    put.add_argument("clip", help="the CLIP: written by train.py, OpenAI's, or "
                     "another OVSeg checkpoint")  # fmt: skip
    put.set_defaults(action=_put)
    take = commands.add_parser("take", help="take CLIP out of an OVSeg checkpoint")
    take.add_argument("ovseg", help=_OVSEG)
    take.add_argument(
        "--name", metavar="NAME",
        help="the CLIP's name, in OpenAI's or open_clip's form, which is written with its weights. "
        "The name of an architecture that OpenAI published stands for OpenAI's CLIP, with "
        "QuickGELU; add -gelu if it was trained with GELU (ViT-B-16-gelu)",
    )  # fmt: skip
    take.set_defaults(action=_take)
    for command in (put, take):
        command.add_argument("output", type=Path, help="file to write")
        command.add_argument("--verify", action="store_true", help="read the file again and "
                             "compare it")  # fmt: skip


def _put(args: argparse.Namespace) -> None:
    ovseg, clip_file = _file(args.ovseg), _file(args.clip)
    _check_target(args.output, ovseg, clip_file)
    from ovseg.engine import clip_exchange as exchange
    from ovseg.modeling.clip import OVSEG_PREFIX, read_clip_file

    checkpoint = exchange.read_ovseg(ovseg)
    clip, model_cfg = read_clip_file(clip_file)
    exchange.check_clip_fits(checkpoint.weights, clip, str(args.clip))
    if not exchange.same_text(checkpoint.weights, clip):
        print("warning: the text tower is not the one that the OVSeg head was trained with")
    wanted = exchange.without_clip(checkpoint.weights)
    wanted |= {OVSEG_PREFIX + key: value for key, value in clip.items()}
    exchange.write(
        exchange.put(checkpoint, clip, model_cfg), args.output, wanted if args.verify else None
    )
    if args.verify:
        print(f"verified: {len(wanted)} weights")
    print(f"{args.output}: {exchange.config_keys(clip)}")


def _take(args: argparse.Namespace) -> None:
    ovseg = _file(args.ovseg)
    _check_target(args.output, ovseg)
    from ovseg.engine import clip_exchange as exchange

    content = exchange.take(exchange.read_ovseg(ovseg), args.name)
    clip = content["state_dict"]
    if "model_cfg" in content:
        activation = "QuickGELU" if content["model_cfg"].get("quick_gelu") else "GELU"
        print(f"written with its architecture; the activation is {activation}")
    else:
        print("without --name the result reads as a CLIP of OpenAI's: QuickGELU, heads 64 wide")
    exchange.write(content, args.output, clip if args.verify else None)
    if args.verify:
        print(f"verified: {len(clip)} weights")
    print(f"{args.output}: {exchange.config_keys(clip)}")


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the export of a checkpoint."""
    parser.add_argument("source", help="checkpoint of train_net.py: a file, or ovseg://NAME")
    parser.add_argument("target", type=Path, nargs="?", help="file to write")
    parser.add_argument(
        "--safetensors", type=Path, metavar="DIR",
        help="folder to write config.yaml and model.safetensors to",
    )  # fmt: skip
    parser.add_argument(
        "--config-file", type=Path, metavar="FILE",
        help="with --safetensors: the checkpoint's config; default: config.yaml beside it, which "
        "train_net.py leaves there, or that of a released checkpoint",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=["fp16", "fp32"], default="fp16", help="of the file; default: fp16"
    )
    parser.set_defaults(action=_export)


def _check_target(target: Path, *sources: Path) -> None:
    """Refuse to write over what is read: a checkpoint could not be resumed any more."""
    for source in sources:
        if target.resolve() == source.resolve():
            raise UserError(f"{str(target)!r} would be overwritten; write to another file")


def _export(args: argparse.Namespace) -> None:
    if args.target is None and args.safetensors is None:
        raise UserError("nothing to write; give a file, or a folder by --safetensors DIR")
    if args.config_file and args.safetensors is None:
        raise UserError("--config-file goes with --safetensors DIR alone; leave it out")

    source = _file(args.source)
    if args.target is not None:
        _check_target(args.target, source)
    if args.safetensors is not None and args.safetensors.resolve() == source.resolve().parent:
        raise UserError(
            f"--safetensors {str(args.safetensors)!r} is the folder of the checkpoint, whose "
            "config.yaml it would replace; give another folder"
        )
    from ovseg.engine.checkpoint_export import export, export_folder

    half = args.precision == "fp16"
    if args.target is not None:
        size = export(source, args.target, half=half)
        print(f"{args.target}: {size / 2**20:.1f} MiB")
    if args.safetensors is not None:
        size = export_folder(source, args.safetensors, args.config_file, half=half)
        print(f"{args.safetensors}: {size / 2**20:.1f} MiB")
